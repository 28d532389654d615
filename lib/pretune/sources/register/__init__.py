"""A register of people, told of in one way or in many: a generated source of text and datasets."""
