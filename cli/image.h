/* SPDX-License-Identifier: Apache-2.0 */
/* What the verbs about images share. */
#ifndef CLI_IMAGE_H
#define CLI_IMAGE_H

#include "oci/local.h"
#include "oci/transfer.h"
#include "os/err.h"
#include "store/store.h"

#include <stdbool.h>
#include <stdio.h>

struct cJSON;

#define EXIT_FAILED 1 /* the verb could not do it; docker's status too */

/* Opens the store.  False after a complaint. */
bool image_open_store(struct store **ret_store);

/* Makes Ctrl-C and SIGTERM ask transfers to end: nonzero when they did. */
extern volatile int image_stop;
void image_catch_signals(void);

/* Complains about @err; returns the exit status, 130 and the like after a signal. */
int image_failed(const struct err *err);

/* Facts about an image for people and scripts. */
struct image_facts {
	struct store_ref ref;
	struct reference name;
	char id[STORE_DIGEST_SIZE];	/* digest of the configuration; "": not here */
	char platform[64];
	char created[64];	/* as the image says it, RFC 3339; "": it does not */
	uint64_t size;	/* bytes of configuration and layers as stored */
};

/* What is known about the image @ref means; what is missing stays empty. */
void image_facts(struct store *store, const struct store_ref *ref, struct image_facts *ret_facts);

/* Adds what is known about the image called @name to an array.  0, -ENOENT, or another negative errno. */
int image_inspect(struct store *store, const char *name, struct cJSON *list, struct err *err);

/* "1.5MB": powers of ten, as docker shows sizes. */
const char *image_size(uint64_t bytes, char buf[16]);
/* "3 days ago", from RFC 3339 text or "N/A". */
void image_age(const char *created, char *buf, size_t size);

/* Prints the help of a verb, or a complaint that names it.  Returns the exit status. */
int verb_help(const char *text);
int verb_misused(const char *verb, const char *why);

#endif /* CLI_IMAGE_H */
