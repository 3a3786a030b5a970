/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files that were read and found whole: not again, as long as nobody has written to them.
 *
 *   checked_state(before)  ->  checked_recall(before)?  there is nothing to do
 *                              otherwise: check, checked_state(after), the same?  checked_note(before)
 *
 * A state is which files they are, their sizes, and their times of change (st_ctime), which every write moves and
 * nobody can set.  It is known where those times come from this kernel's clock, and not before the clock has ticked
 * since the last change: a later one then has another time.  What was noted counts until the host boots again, so that
 * what a disk has lost meanwhile is found.
 *
 * The notes are digests, the newest first, in file "checked" of the data folder.
 */
#ifndef OS_CHECKED_H
#define OS_CHECKED_H

#include "base/sha256.h"

#include <stdbool.h>

#define CHECKED_TAGS 2u	/* what a check may have found: 0 or 1 */

struct checked_state {
	uint8_t digest[SHA256_SIZE];
};

/* The state of @n open files together, for whoever has @key.  0, -EAGAIN when one was changed just now, -EOPNOTSUPP where it is not known. */
int checked_state(const int *fds, unsigned n, const uint8_t key[SHA256_SIZE], struct checked_state *ret);

/* Whether files in that state were noted, and with which tag. */
bool checked_recall(const struct checked_state *state, unsigned *ret_tag);

/* Fails quietly: they will be checked again. */
void checked_note(const struct checked_state *state, unsigned tag);

#endif /* OS_CHECKED_H */
