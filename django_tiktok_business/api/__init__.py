"""TikTok's Accounts API on the wire: one call, what its answer means, the endpoints by group."""
