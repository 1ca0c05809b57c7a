"""Which tasks are in memory, in which state, and who has to leave."""
