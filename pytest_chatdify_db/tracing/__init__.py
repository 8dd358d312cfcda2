"""What a test executes, for whom and from which line; what waits for what; and what is said about it."""
