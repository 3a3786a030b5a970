/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kernel modules: which others a module needs, in which order to load them.
 *
 * Dependencies are read from the modules themselves (.modinfo: "depends=",
 * "softdep=pre:"), because modules.dep is made on installation and a package
 * does not contain it.  "-" and "_" are the same in module names, as in the
 * kernel's own tools.
 */
#ifndef BUILD_MODULE_H
#define BUILD_MODULE_H

#include <stddef.h>
#include <stdint.h>

struct err;

struct module {
	char *name;	/* with "_" */
	char *data;	/* the ELF file, decompressed */
	size_t len;	/* bytes */
};

/* Modules in an order in which they can be loaded.  Owned; module_list_free(). */
struct module_list {
	struct module *at;
	size_t count;
};

/*
 * Reads the modules @names (NULL-ended) and all they need from the tree at
 * @dir.  What is built into the kernel is left out; a name starting with "?"
 * may also be absent.
 *
 * Returns 0, -ENOENT naming the module that is missing, -EBADMSG for a file
 * that is no module, -ELOOP for circular dependencies, or another negative errno.
 */
int module_list_load(const char *dir, const char *const names[], struct module_list *ret_list,
		     struct err *err);
void module_list_free(struct module_list *list);

/*
 * Value of the first ".modinfo" entry "@key=value" in a module's ELF image at or
 * after *@cursor (start with 0), or NULL.  The pointer is into @data, and
 * NUL-terminated there.
 */
const char *module_info(const void *data, size_t len, const char *key, size_t *cursor);

#endif /* BUILD_MODULE_H */
