"""Certificates as a user meets them: recorded by one command, compared with by another."""

from __future__ import annotations
