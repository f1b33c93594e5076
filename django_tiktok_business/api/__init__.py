"""TikTok's Accounts API on the wire: calls, what their answers mean, and groups of endpoints."""
