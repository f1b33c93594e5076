"""Django signals about accounts: connected, refreshed, rejected, synced, disconnected.

The sender is the class `BusinessAccount`; the argument ``account`` is the instance. Signals are
sent after the change is committed, with ``send_robust``: Django logs what a receiver raises under
``django.dispatch``, and nothing else happens.

A process that is killed right after the commit sends no signal. In a batch, receivers run in the
thread that saves the answers, and the following answers wait for them: hand slow work to a queue.
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

# created: bool, False when an existing account is connected again
account_connected = Signal()

tokens_refreshed = Signal()

# error: TikTokBusinessError; the account's tokens and status are unchanged, and it is tried again
refresh_failed = Signal()

# error: ReauthorizationRequired; sent once, when a rejection by TikTok changes the account's status
reauthorization_required = Signal()

# ends_at: datetime; sent once for each consent, REAUTHORIZATION_WARNING_DAYS ahead, by a run after
# it has saved its last token
consent_ends_soon = Signal()

profile_synced = Signal()

# error: TikTokBusinessError, why TikTok did not confirm the disconnect, or None
account_disconnected = Signal()

# Reserved for TikTok's webhooks; nothing sends it yet.
webhook_received = Signal()
