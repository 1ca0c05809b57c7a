"""Requests and responses on the wire, in vLLM's and OpenAI's shapes.

Fields that would change the answer and are not supported are declared with the one value that is,
so that another value is refused by name; fields that change nothing are ignored, as vLLM does.
"""
