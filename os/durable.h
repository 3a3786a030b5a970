/* SPDX-License-Identifier: Apache-2.0 */
/* Files that are either complete or absent, whatever kills the writer. */
#ifndef OS_DURABLE_H
#define OS_DURABLE_H

#include <stddef.h>

struct err;

/*
 * Puts @len bytes at @path with @mode: written under a temporary name in the same
 * folder, synced, renamed, folder synced.  An existing file is replaced.
 * Returns 0 or a negative errno; then nothing has changed.
 */
int durable_write(const char *path, const void *data, size_t len, unsigned mode, struct err *err);

#endif /* OS_DURABLE_H */
