/* SPDX-License-Identifier: Apache-2.0 */
/* Shared libraries that are loaded when their first function is called: tools/lazy-library.py makes the callers. */
#ifndef OS_LAZY_H
#define OS_LAZY_H

struct lazy_library {
	const char *soname;
	const char *const *name;	/* of its functions */
	const void **at;	/* where calls of them go: to the library when it is known */
	void *_Atomic handle;	/* NULL: not loaded yet */
};

/*
 * Finds function @index, for this call and later ones.  Any thread.  A library that is not
 * there is a broken installation: says so and ends the program with status 125.
 */
const void *lazy_function(struct lazy_library *library, unsigned index);

#endif /* OS_LAZY_H */
