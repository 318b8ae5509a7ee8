"""Networks: what is behind a network card.

A card gives frames to its back end and is given frames (`backend.py`); what cards leave to others, checksums and
segmentation, is `offload.py`.
"""
