"""Differences between databases, durable writes, one clock for all machines, and paging."""
