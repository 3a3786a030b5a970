/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where roux keeps things.
 *
 *   data   must not get lost: $ROUX_STORE, else /var/lib/roux for root and
 *          $XDG_DATA_HOME/roux or ~/.local/share/roux for others
 *   state  lasts while VMs run: $ROUX_STATE, else $XDG_RUNTIME_DIR/roux, else
 *          /run/roux for root and DATA/run for others
 *   cache  may be deleted at any time: $ROUX_CACHE, else $XDG_CACHE_HOME/roux or
 *          ~/.cache/roux; file_cache_dir() makes folders in it
 *
 * Relative paths in ROUX_* count from the present working folder; in others they do not count.
 */
#ifndef OS_FOLDERS_H
#define OS_FOLDERS_H

#include <stddef.h>

struct err;

/* Fill @ret with the absolute path, which need not exist.  0, -ENOENT (no home), -ENAMETOOLONG or another negative errno. */
int folder_data(char *ret, size_t size, struct err *err);
int folder_state(char *ret, size_t size, struct err *err);
int folder_cache(char *ret, size_t size, struct err *err);

/* The same for @sub ("/...") of the user's home.  @variable names the way out when there is none. */
int folder_home(char *ret, size_t size, const char *sub, const char *variable, struct err *err);

/*
 * Makes folder @folder@sub (mode 0700) when it is missing.  @variable names the way out when the
 * folder cannot be made.  0 or a negative errno with a sentence.
 */
int folder_make(const char *folder, const char *sub, const char *variable, struct err *err);

#endif /* OS_FOLDERS_H */
