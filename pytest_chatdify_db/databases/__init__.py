"""The databases of a run on its server: the template, its copies, and those of tests that have one of their own."""
