"""English words by kind, above all for what can be seen: the lexicon that ``quality.py`` uses.

Words that mostly mean something else in a sentence ("light", "like", "hold", "play") are left out,
also where they can be visual: a sentence that says something visible has other words of the list.
"""

from __future__ import annotations

import re
from functools import cache

_COLOURS = """
amber beige black blackish blue bluish bright bronze brown brownish camouflage charcoal checkered
chestnut color colored colour coloured copper cream creamy crimson dappled dark dull gleaming glow
glowing golden gray grayish green greenish grey greyish hue indigo ivory khaki maroon mottled
multicolored multicoloured olive opaque orange pale pattern patterned pink pinkish purple red
reddish scarlet shade shaded silver silvery speckled spotted stripe striped tan teal tint tinted
translucent transparent turquoise violet white whitish yellow yellowish
"""
_SHAPES = """
angular arc arch arched ball bar barrel bell bent blob block blocky blunt boxy bulbous bulge
bulging bulky bump bumpy circle circular coil coiled compact concave cone conical contour convex
crease creased crescent crisscross cross crosshatched cube cubical curl curly curve curved curvy
cylinder cylindrical dash diamond dip disc dish disk dome domed donut dot dotted egg ellipse
elliptical elongated fan-shaped flare flared flaring flat flattened folded fork forked forking
fringed globe hatching heart helix hexagon hexagonal hollow hook hooked hooped hourglass hump
humped hunched jagged knob knobbly knobby limp line lobe lobed loop looped lozenge notched oblong
octagon octagonal outline oval ovoid parallel pear pentagon pleated pointed points pointy polygon
prism profile pyramid rectangle rectangular ridged ring ringed round rounded ruffled saucer
scalloped semicircle semicircular serrated shape shaped sharp silhouette slanted slanting slit
sloped sloping slotted spear sphere spherical spike spiked spiky spiral splayed spread square
squared squarish squat squiggle squiggly star straight streamlined stretched stroke swirl swollen
symmetric symmetrical taper tapered tapering teardrop tilted trapezoid triangle triangular tube
tubular twist twisted u-shaped v-shaped wave wavy wedge wrinkle wrinkled zig-zag zigzag
"""
_MATERIALS = """
aluminium aluminum bark bone bony brass brick bristle bristly bronze canvas cardboard cement
ceramic cheese chrome clay cloth cloudy concrete cotton crust crusty crystal denim dirt dough
dusty enamel enamelled fabric felt fiber fibre fiery flame fleece fleecy fleshy fluffy foam foamy
foliage frosty fur furry fuzzy gauze glass glassy glazed gloss glossy gold grained grass grassy
gravel grease gritty hair hairless hairy horn ice icing icy iron jelly knit knitted lace lacquered
lava leather leathery linen marble matte mesh metal metallic misty moss mossy muscular nylon paint
painted paper papery plastic plumage plush polished porcelain quilted reflective rock rocky rope
rough rubber rubbery rust rusted rusty sand sandy satin sauce scale scaly shaggy shiny silk silky
slate slick slimy smoke smoky smooth snow snowy soft soil spiny spongy stainless steam steel
sticky stone straw surface tarmac texture textured timber tin tinsel titanium vapor vapour varnish
varnished veined velvet velvety vinyl water watery wax waxy wet wicker wire wiry wood wooden wool
woolly woven wrought
"""
_SIZES = """
big bigger broad chunky deep dense double elongate enormous fat fine foreshortened giant gigantic
half heavy-set high huge lanky large larger lean lengthy little long longer low massive minute
narrow narrower oversized plump puffy shallow short shorter slender slim small smaller spindly
squat stocky stout stubby sturdy tall taller thick thicker thin thinner tiny towering twice wide
wider
"""
_PARTS = """
abdomen ankle antenna antennae antler arm armor armour armrest awning axle backboard backrest
balcony bands banister bank barb barbel base bead beak beam belly belt berries berry bill blade
blanket blossom bodice body bolt boneless bonnet boom boot bow bowl box brain branch breast brim
bristle bristles brow buckle bud bulb bumper bun button cab cable canopy cap carapace case casing
castle ceiling chain cheek cheekbone chest chimney chin clapper clasp claw clip clockface coat
cockpit collar column comb cone cord corner crank crater crest cross crossbar crossguard crown
crumb cuff cup cushion dashboard deck dial display dorsal drain drawer drawstring drip droplet ear
earcup earpiece eave eaves edge elbow engine exhaust eye eyeball eyebrow eyelash eyelid fabric
face fang feather feeler feet fender figure filter fin finger fingernail flag flank flap flesh
flipper floret flower fold foot forehead foreleg forelimb frame fret fringe frond frosting funnel
fuselage gable gill girder gown grid grill grille grip groove guard gun hair halo hand handle
handlebar hat hatch head headlamp headlight headstock heel hem hind hinge hip hood hoof hooves
horizon horn hub hull husk insect iris jacket jaw jet joint jointed keel kernel key keyboard knee
knot knuckle label lace laces lash lattice leaf leafless leaflet leafy leash leaves leg lens
lenses lid limb lip lobe log lug mane mast mattress mirror mortar mound mouth mouthpiece muzzle
nail neck needle nose nostril nozzle numeral opening orb pad paddle palm pane panel paw peak pedal
pedestal peel peg pelvis petal pickup pillar pillow pin pincer pistil plank plastron plate
platform plug plume pocket pod pointer pole pool porch porthole post pot prong propeller pupil
quill rack rail railing rays rear reed reflector rib ribbed ribbon ridge rim rind rivet roadway
rod roller roof root rotor rudder rump runner saddle sail scoop screen screw scroll seam seat seed
segment segmented sepal shaft sheath sheet shell shield shin shoe shoreline shoulder shutter skin
skirt skull slat slats sleeve slice slope slot smile snout socket sole soundhole spade spike
spindle spine spire spoke spot spout spring sprinkle spur stair stalk stamen stem step stick sting
stinger stock strap straw string strip strut stub stud stump sucker suction summit sunroof tail
tailplane talon tank tap taps tarpaulin tassel teeth tendril tentacle thigh thorax thorn thread
thumb tip tire toe toes tongue tooth topping torso tower tracks tread tree trigger trim trousers
trunk tubes tuft tusk tyre udder underside upholstered vane vein vent visor wafer waist wall
wattle web webbed wheel whisker wick window windscreen windshield wing wings wingtip wrist zip
zipper
"""
_POSITIONS = """
above across ahead aligned along alongside apart around atop attached backward behind below
beneath beside between bottom center centered central centrally centre crossed crosswise diagonal
diagonally downward downwards end facing forward front halfway hang hanging horizontal
horizontally inner inside inward joined joins layer layered left lengthwise lower middle nested
outer outside outward outwards overhang overlap overlapping pair perpendicular protrude protrudes
protruding raised rear right row side sideways sits stacked stand standing stands surround
surrounds top topped toward towards under underneath upper upright upside upward upwards vertical
vertically within
"""
_ENDINGS = (
    ("s", ""),
    ("es", ""),
    ("ies", "y"),
    ("ed", ""),
    ("d", ""),
    ("ing", ""),
    ("er", ""),
    ("est", ""),
)
_FUNCTION = """
a all along an and are as at be been both but by can each for from has have in into is it its
itself like may more most no nor not of off often on one only or other out over so some than that
the their them then there these they this those through to two under up usually very when where
which while with without
"""
_COUNTS = """
couple dozens eight few five four many nine numerous pairs rows seven several six ten three two
"""


@cache
def visual_words() -> frozenset[str]:
    """Words of colour, shape, material, texture, size and for parts."""
    return frozenset(" ".join((_COLOURS, _SHAPES, _MATERIALS, _SIZES, _PARTS)).split())


@cache
def place_words() -> frozenset[str]:
    """Words that say where things are and how many; alone they show nothing."""
    return frozenset(f"{_POSITIONS} {_COUNTS}".split())


@cache
def _function_words() -> frozenset[str]:
    return frozenset(_FUNCTION.split())


def find_visual_words(sentence: str, *, besides: str = "") -> tuple[set[str], set[str]]:
    """Collect the words of a sentence that say something visible.

    Args:
        sentence: text in English.
        besides: text whose words do not count, such as the name of the class.

    Returns:
        Its words for colours, shapes, materials, sizes and parts, and its words for places and
        counts, in lower case and as the lexicon has them; plurals and forms of verbs count as the
        word itself, and a word counts once.
    """
    own = set(_words(besides))
    strong, weak = set(), set()
    for word in set(_words(sentence)) - own:
        forms = _forms(word) - own
        strong |= set(sorted(forms & visual_words(), key=len)[-1:])
        weak |= set(sorted(forms & place_words(), key=len)[-1:])
    return strong, weak - strong


def english_share(sentence: str) -> float:
    """Tell how much of a text is English by the words of this lexicon.

    Args:
        sentence: text of any language.

    Returns:
        The share of its words that are function words ("the", "of", "its") or words for what can
        be seen, from 0 to 1; 0 without words.
    """
    words = re.findall(r"[^\W\d_]+(?:'\w+)?", sentence.lower())
    known = visual_words() | place_words() | _function_words()
    return sum(bool(_forms(word) & known) for word in words) / max(len(words), 1)


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z-]+", text.lower())


def _forms(word: str) -> set[str]:
    """The word and what it may be a plural or a form of, also of both parts of a compound."""
    found = {word, *word.split("-")} - {""}
    for plain in tuple(found):
        for end, instead in _ENDINGS:
            if plain.endswith(end) and len(plain) - len(end) >= 3:
                found.add(plain[: -len(end)] + instead)
    return found
