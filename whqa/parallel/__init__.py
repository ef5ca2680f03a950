"""Processes of one command: one function over many items, and one process that works beside this one."""
