/* SPDX-License-Identifier: Apache-2.0 */
/* The terminal that roux itself runs on. */
#ifndef CLI_TERMINAL_H
#define CLI_TERMINAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * Lets bytes pass as they are: the guest's terminal does the editing and the line
 * ends.  Without @interactive the keys keep their meaning here.
 */
void terminal_raw(bool interactive);
void terminal_restore(void);	/* as it was; any number of times */

/* Size of the terminal on standard output or input; false when there is none. */
bool terminal_size(uint16_t *ret_rows, uint16_t *ret_cols);

#define DETACH_KEYS_MAX 8u

/* A sequence of keys that means "leave me alone, go on running". */
struct detach_keys {
	uint8_t key[DETACH_KEYS_MAX];
	size_t n;	/* 0: no such sequence */
	size_t matched;	/* keys of it that were seen and are held back */
};

/* Reads "ctrl-p,ctrl-q" and the like; "" is no sequence.  False when it is malformed. */
bool detach_keys_parse(const char *text, struct detach_keys *ret_keys);

/*
 * Looks for the sequence in @data[0..@len), which has room for DETACH_KEYS_MAX more.
 * How many bytes are to be passed on, or -ECANCELED when it was complete.
 */
ssize_t detach_keys_filter(struct detach_keys *keys, uint8_t *data, size_t len);

#endif /* CLI_TERMINAL_H */
