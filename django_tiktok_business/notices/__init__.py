"""Notifying people about accounts that need them."""
