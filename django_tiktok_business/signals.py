"""What happens to connections, as Django signals.

All are sent by `BusinessAccount` (the class) after the change is committed, with ``account``, the
`BusinessAccount`. They are sent with ``send_robust``: what a receiver raises is logged by Django,
under ``django.dispatch``, and changes nothing.

A process that is killed right after the commit sends no signal. In a batch receivers run in the
thread that saves the answers, and the next ones wait for them: hand slow work to a queue.
"""

from __future__ import annotations

from django.dispatch import Signal

__all__ = [
    "account_connected",
    "account_disconnected",
    "consent_ends_soon",
    "profile_synced",
    "reauthorization_required",
    "refresh_failed",
    "tokens_refreshed",
    "webhook_received",
]

# created: bool, False when an account that was known is connected again
account_connected = Signal()

tokens_refreshed = Signal()

# error: TikTokBusinessError; the account stays as it was and is tried again later
refresh_failed = Signal()

# error: ReauthorizationRequired; sent once, when TikTok's verdict changes the account's status
reauthorization_required = Signal()

# ends_at: datetime; sent once for each consent, REAUTHORIZATION_WARNING_DAYS ahead, by the run that
# finds it and after its last token
consent_ends_soon = Signal()

profile_synced = Signal()

# error: TikTokBusinessError or None; not None when TikTok could not be told
account_disconnected = Signal()

# Reserved for TikTok's webhooks; nothing sends it yet.
webhook_received = Signal()
