"""The pages that docs/generate writes out of the code."""
