"""The kinds of scene and what each can hold: its main thing, its objects, its neighbours, and the words for them."""

from dataclasses import dataclass

ROOFS = "red, grey, white, blue"


@dataclass(frozen=True)
class Kind:
    """One kind of scene: a main thing with a tint, some objects to count, a neighbour at an edge."""

    names: tuple[str, ...]
    main: tuple[str, ...]  # "a terminal", or without article what is many or a mass
    tints: tuple[str, ...]
    objects: tuple[str, ...]  # the first is the name the drawing knows
    counts: tuple[int, ...]
    colours: tuple[str, ...]
    where: str  # the preposition between objects and the kind
    relations: tuple[str, ...]  # between objects and the main thing
    neighbours: tuple[str, ...]


def _kind(
    names: str,
    main: str,
    tints: str,
    objects: str,
    counts: tuple[int, int],
    colours: str,
    where: str,
    relations: str,
    *,
    without: str = "",
    neighbours: str = "road, river, railway, forest, field, houses",
) -> Kind:
    def names_in(text: str) -> tuple[str, ...]:
        return tuple(text.split(", "))

    return Kind(
        names_in(names),
        names_in(main),
        names_in(tints),
        names_in(objects),
        tuple(range(counts[0], counts[1] + 1)),
        names_in(colours),
        where,
        names_in(relations),
        tuple(name for name in names_in(neighbours) if name not in names_in(without)),
    )


# fmt: off
KINDS = {
    "airport": _kind(
        "airport, airfield", "a terminal, a terminal building", "grey, white, blue, red",
        "plane, airplane", (1, 5), "white, red, blue, yellow",
        "at", "beside, in front of, next to",
    ),
    "stadium": _kind(
        "stadium, sports stadium", "stands, seats", "red, blue, yellow, white",
        "bus, coach", (1, 4), "white, red, blue, yellow",
        "outside", "outside, near, beside",
    ),
    "river": _kind(
        "river, winding river", "water", "blue, green, brown",
        "boat, ship", (1, 5), "white, red, yellow, black",
        "on", "on, floating on", without="river",
    ),
    "bridge": _kind(
        "bridge, river bridge", "a deck, a roadway", "grey, white, red, brown",
        "truck, lorry", (1, 4), "white, red, blue, yellow",
        "on", "on, driving on", without="river, railway",
    ),
    "farmland": _kind(
        "farm, piece of farmland", "fields, crops", "green, yellow, brown",
        "barn, farm building", (1, 5), ROOFS,
        "on", "among, between, amid", without="field, houses",
    ),
    "forest": _kind(
        "forest, woodland", "trees, leaves", "green, orange, yellow",
        "cabin, hut", (1, 5), ROOFS,
        "in", "among, surrounded by", without="forest, houses",
    ),
    "harbour": _kind(
        "harbour, marina", "a pier, a jetty", "grey, brown, white",
        "boat, yacht", (2, 6), "white, red, yellow, black",
        "in", "moored at, beside, along", without="river",
    ),
    "parking lot": _kind(
        "parking lot, car park", "parked cars", "many, few",
        "bus, coach", (1, 5), "white, red, blue, yellow",
        "in", "beside, next to, near",
    ),
    "running track": _kind(
        "running track, athletics ground", "lanes", "red, blue, orange, grey",
        "grandstand, stand", (1, 4), ROOFS,
        "at", "beside, near, along",
    ),
    "tennis courts": _kind(
        "tennis club, tennis centre", "a clubhouse, a building", ROOFS,
        "tennis court", (1, 6), "blue, green, red",
        "at", "near, next to, beside",
    ),
    "baseball fields": _kind(
        "baseball park, baseball ground", "a clubhouse, a building", ROOFS,
        "baseball field, baseball diamond", (1, 4), "brown, red, yellow",
        "at", "next to, near, beside",
    ),
    "storage tanks": _kind(
        "tank farm, oil depot", "a pump house, a building", ROOFS,
        "storage tank, round tank", (2, 7), "white, grey, red, blue, green",
        "at", "near, beside, next to",
    ),
    "dense residential": _kind(
        "dense residential area, crowded neighbourhood", "roofs, house roofs", "red, grey, brown, blue",
        "swimming pool, pool", (1, 6), "blue, green",
        "in", "among, between", without="houses",
    ),
    "sparse residential": _kind(
        "sparse residential area, quiet suburb", "ground, open ground", "green, yellow, brown",
        "house, home", (1, 6), "red, grey, white, blue, brown",
        "in", "on, standing on", without="houses",
    ),
    "beach": _kind(
        "beach, seaside beach", "sand", "yellow, white, grey",
        "umbrella, parasol", (2, 6), "red, blue, yellow, green, orange",
        "on", "on, standing on", without="river, field",
    ),
    "desert": _kind(
        "desert, dry desert", "sand, dunes", "yellow, orange, white, brown",
        "tent", (1, 5), "white, red, blue, black",
        "in", "on, standing on", without="field, houses",
    ),
    "railway station": _kind(
        "railway station, train station", "a roof, a station roof", ROOFS,
        "train", (1, 4), "red, blue, white, yellow, green",
        "at", "beside, next to, near", without="railway",
    ),
    "overpass": _kind(
        "overpass, viaduct", "lanes, roads", "grey, black, brown",
        "truck, lorry", (1, 5), "white, red, blue, yellow",
        "on", "on, driving on", without="road, railway",
    ),
    "roundabout": _kind(
        "roundabout, traffic circle", "a centre, a middle", "green, red, brown, white",
        "car", (1, 5), "white, red, blue, yellow, black",
        "on", "driving around, around", without="road",
    ),
    "pond": _kind(
        "pond, small lake", "water", "blue, green, brown",
        "tree, round tree", (2, 7), "green, orange, yellow",
        "around", "around, beside, by", without="river, forest",
    ),
    "church": _kind(
        "church, chapel", "a roof, a cross shaped roof", "red, grey, brown, green, blue",
        "car", (1, 5), "white, red, blue, yellow, black",
        "at", "near, beside, next to",
    ),
    "school": _kind(
        "school, campus", "a building, a school building", ROOFS,
        "basketball court, court", (1, 4), "green, red, blue, orange",
        "at", "in front of, near, beside",
    ),
    "factory": _kind(
        "factory, industrial area", "halls, workshops", ROOFS,
        "chimney, smoking chimney", (1, 4), "red, white, black, brown",
        "at", "among, beside, near",
    ),
    "mountain": _kind(
        "mountain, mountain range", "slopes, ridges", "brown, grey, green, white",
        "lake, mountain lake", (1, 4), "blue, green, black",
        "on", "between, among", without="field, houses",
    ),
    "island": _kind(
        "island, sea island", "land, ground", "green, yellow, grey",
        "boat, ship", (1, 5), "white, red, yellow, black",
        "near", "near, beside", neighbours="coast, reef, bar",
    ),
    "golf course": _kind(
        "golf course, golf club", "a clubhouse, a building", ROOFS,
        "bunker, sand trap", (2, 6), "white, yellow, brown",
        "on", "near, around",
    ),
    "wind farm": _kind(
        "wind farm, wind park", "fields, farmland", "green, yellow, brown",
        "wind turbine, windmill", (1, 6), "white, red, grey",
        "at", "on, standing on", without="field",
    ),
    "solar farm": _kind(
        "solar farm, solar power plant", "a building, a control house", ROOFS,
        "solar array, block of solar panels", (2, 6), "blue, black",
        "at", "near, beside, next to",
    ),
    "downtown": _kind(
        "downtown area, city centre", "a square, a plaza", "red, yellow, white, green",
        "tower, skyscraper", (2, 6), "blue, grey, white, brown, black",
        "in", "around, beside, by", without="field, houses",
    ),
    "greenhouses": _kind(
        "nursery, greenhouse farm", "a shed, a barn", ROOFS,
        "greenhouse, glass house", (2, 6), "white, blue, green",
        "at", "near, beside, next to",
    ),
}
# fmt: on
