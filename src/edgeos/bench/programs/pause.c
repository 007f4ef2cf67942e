/* pause: a minimal process that stays, so that its memory can be looked at. Writes one byte once it is there. */
#include <unistd.h>

int main(void) {
    if (write(1, "r", 1) != 1) return 1;
    pause();
    return 0;
}
