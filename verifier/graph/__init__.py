"""What a model does: every tensor-producing operation of one forward pass, as a graph of sites."""

from verifier.graph.calls import KeptCall
from verifier.graph.recording import EndedEarly, record
from verifier.graph.sites import Graph, Site

__all__ = ["EndedEarly", "Graph", "KeptCall", "Site", "record"]
