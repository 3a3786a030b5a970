/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Debian's package indexes (Debian policy, chapters 5 and 7): which packages there
 * are and which of them one set needs.  Text in, structs out: no I/O.
 */
#ifndef BUILD_PACKAGES_H
#define BUILD_PACKAGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;

/* Strings point into the text given to packages_parse(), and are "" when absent. */
struct package {
	const char *name, *version, *architecture, *priority, *depends, *pre_depends, *provides;
	const char *filename, *sha256;
	uint64_t size;	/* bytes of the file */
	bool essential, same;	/* same: may be installed for several architectures */
	bool chosen;
};

struct packages {
	struct package *at;	/* owned, sorted by name */
	size_t count;
	size_t *chosen;	/* owned; indexes in the order of choice */
	size_t nchosen;
};

/*
 * Parses an index.  @text is changed and must live as long as the result; it ends
 * with a NUL at @len.  0, -EBADMSG for what is no index, or -ENOMEM.
 */
int packages_parse(char *text, size_t len, struct packages *ret_packages, struct err *err);
void packages_free(struct packages *packages);

/*
 * Chooses the packages of a small system (essential, required, apt), those named in
 * @include (separated by commas; NULL: none) and all they depend on; of alternatives
 * the first that is there.  0, or -ENOENT naming what does not exist.
 */
int packages_choose(struct packages *packages, const char *include, struct err *err);

/*
 * Finds "SHA256" of @name in the text of a Release file.  0, -ENOENT, or -EBADMSG.
 */
int packages_release_hash(const char *release, const char *name, char ret_hex[65], uint64_t *ret_size,
			  struct err *err);

#endif /* BUILD_PACKAGES_H */
