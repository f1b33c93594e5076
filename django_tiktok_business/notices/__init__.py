"""Notices to people about accounts that need them."""
