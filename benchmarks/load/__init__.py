"""Open-loop load on any server that speaks OpenAI's routes: requests come when they come."""
