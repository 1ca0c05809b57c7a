"""The service: HTTP routes, scheduling, residency and the engines that answer.

It knows the store (`nps_store`) and never the search: what a task's weights are was decided when
the task was compressed, and a server only puts them in place.
"""
