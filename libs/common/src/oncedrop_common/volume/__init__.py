"""The shared volume: what is in it, what can fail, and the only place that makes paths."""

from oncedrop_common.volume.contents import FoundFile, Marker, OpenBlob, Part, Place, Stranger
from oncedrop_common.volume.layout import Volume

__all__ = ["FoundFile", "Marker", "OpenBlob", "Part", "Place", "Stranger", "Volume"]
