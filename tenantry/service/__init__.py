"""Declaring a service."""
