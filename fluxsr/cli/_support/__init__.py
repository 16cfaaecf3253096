"""Provides what the commands share: options from signatures, configurations, messages, help pages, interruption."""
