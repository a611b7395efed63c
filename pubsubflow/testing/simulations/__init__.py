"""Simulations on request, in processes of their own."""
