/* What the launcher prints of its own: the answer to VERSION and error objects.
 *
 * Exactly one JSON object, in one write, never followed by another.
 */
#ifndef WEFT_REPORT_H
#define WEFT_REPORT_H

#include "bytes.h"

/* A JSON string with its quotes; what is no UTF-8 becomes U+FFFD. */
void put_json_text(struct buffer *out, const char *text);

/* {"cniVersion","code","msg","details"} on standard output; returns the exit status 1.
 * `reason` is a key of the error catalogue. */
int report_error(const char *version, int code, const char *reason, const char *message);

/* The answer to VERSION; returns the exit status. */
int report_versions(const char *version);

/* A line as it is on standard output; returns the exit status. */
int report(const char *line);

/* One line on standard error, for the runtime's log. */
void note(const char *message);

/* The same of any length, cut where that is too much; `details`, unless empty, in brackets. */
void tell(const char *message, const char *details);

#endif
