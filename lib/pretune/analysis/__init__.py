"""From scored rows to numbers and pictures; knows no finding."""
