/* Reading standard input and writing standard output, both bounded in size and in time. */
#ifndef WEFT_STREAM_H
#define WEFT_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Milliseconds of the monotonic clock. */
int64_t now(void);

/* What is left until `deadline`, at least 0, as poll(2) wants it. */
int left_until(int64_t deadline);

/* Waits until `fd` has one of `events` or the deadline passes; false: it passed. */
bool wait_for(int fd, short events, int64_t deadline);

enum reading { READ_ALL, READ_TOO_MUCH, READ_TOO_SLOW, READ_FAILED };

/* Reads `fd` to its end into `into` (at most `size` bytes). On READ_FAILED errno says why. */
enum reading read_to_end(int fd, unsigned char *into, size_t size, int64_t deadline,
                         size_t *length);

/* Writes everything or returns false. */
bool write_all(int fd, const void *data, size_t length, int64_t deadline);

/* Gives descriptors 0 to 2 a holder each when the caller closed them, so that no socket of ours
 * takes their place. The holder refuses reads and writes just as a closed descriptor does. */
bool hold_standard_descriptors(void);

#endif
