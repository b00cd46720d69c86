"""Toy City: labelled street scenes drawn from a seed, in a "game" and a "camera" look.

World coordinates are metres: x to the right of the road's middle, y up, z ahead of the eye. Every
outline is painted, far to near, into one map of surface numbers; the colour, label and plane of a
pixel are looked up by its number, so picture and label cannot disagree. The plane gives the pixel
its depth, and with it textures in perspective and the haze.
"""

from datasets.toy_city.files import MARKER as MARKER
from datasets.toy_city.files import drawn_from as drawn_from
from datasets.toy_city.files import make_toy_city as make_toy_city
from datasets.toy_city.looks import LABEL_ID as LABEL_ID
from datasets.toy_city.scenes import draw_scene as draw_scene
