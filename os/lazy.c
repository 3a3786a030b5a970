/* SPDX-License-Identifier: Apache-2.0 */
#include "os/lazy.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#define STATUS 125	/* as roux ends when it cannot begin */

const void *lazy_function(struct lazy_library *library, unsigned index)
{
	void *handle = library->handle;
	const void *found;

	/* Two threads may both load it: they get the same handle. */
	if (!handle)
		library->handle = handle = dlopen(library->soname, RTLD_NOW | RTLD_LOCAL);
	found = handle ? dlsym(handle, library->name[index]) : NULL;
	if (!found) {
		(void)fprintf(stderr, "roux: %s; install the library again\n", dlerror());
		exit(STATUS);
	}
	__atomic_store_n(&library->at[index], found, __ATOMIC_RELEASE);
	return found;
}
