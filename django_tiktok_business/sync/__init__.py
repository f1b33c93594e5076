"""Accounts' profiles and metrics, copied from TikTok."""
