"""From findings to pages."""
