/* SourceIPHashMapper: the pattern of the first point on the circle behind the address's own; a request that tries on takes
 * the patterns of the points behind it. */
static uint32_t ME(choose)(uint32_t saddr, uint32_t attempt) {
    uint32_t hash = click_swap32(saddr) * 0x9e3779b1u;
    hash ^= hash >> 15;
    hash *= 0x85ebca77u;
    hash ^= hash >> 13;
    uint32_t low = 0, high = POINTS;
    while (low < high) {
        const uint32_t middle = (low + high) / 2;
        if (ME(places)[middle] < hash) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    const uint32_t first = ME(owners)[low % POINTS];
    return (first + attempt) % PATTERNS;
}
