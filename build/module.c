/* SPDX-License-Identifier: Apache-2.0 */
#include "build/module.h"

#include "base/checked.h"
#include "build/archive_file.h"
#include "os/err.h"
#include "os/file.h"

#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MODULE_MAX (64u * 1024u * 1024u) /* bytes, decompressed */
#define NAME_MAX_LEN 64
#define DEPTH_MAX 32 /* of folders, and of dependencies */
#define BUILTIN_MAX (1024u * 1024u) /* bytes of modules.builtin */

/* ---- .modinfo ---- */

/* A section's bytes inside @data, or NULL when any table entry lies outside. */
static const char *find_section(const char *data, size_t len, const char *name, size_t *ret_len)
{
	Elf64_Ehdr eh;
	Elf64_Shdr names, sh;

	if (len < sizeof(eh))
		return NULL;
	memcpy(&eh, data, sizeof(eh));
	if (memcmp(eh.e_ident, ELFMAG, SELFMAG) != 0 || eh.e_ident[EI_CLASS] != ELFCLASS64 ||
	    eh.e_shentsize != sizeof(sh) || eh.e_shstrndx >= eh.e_shnum ||
	    !range_ok(eh.e_shoff, (uint64_t)eh.e_shnum * sizeof(sh), len))
		return NULL;
	memcpy(&names, data + eh.e_shoff + eh.e_shstrndx * sizeof(sh), sizeof(names));
	if (!range_ok(names.sh_offset, names.sh_size, len))
		return NULL;
	for (unsigned i = 0; i < eh.e_shnum; i++) {
		memcpy(&sh, data + eh.e_shoff + i * sizeof(sh), sizeof(sh));
		if (!range_ok(sh.sh_name, strlen(name) + 1, names.sh_size) ||
		    strncmp(data + names.sh_offset + sh.sh_name, name, strlen(name) + 1) != 0)
			continue;
		if (sh.sh_type == SHT_NOBITS || !range_ok(sh.sh_offset, sh.sh_size, len))
			return NULL;
		*ret_len = sh.sh_size;
		return data + sh.sh_offset;
	}
	return NULL;
}

const char *module_info(const void *data, size_t len, const char *key, size_t *cursor)
{
	size_t size = 0, key_len = strlen(key);
	const char *info = find_section(data, len, ".modinfo", &size);

	while (info && *cursor < size) {
		const char *at = info + *cursor;
		size_t n = strnlen(at, size - *cursor);

		if (n == size - *cursor)
			return NULL;	/* the last string has no end */
		*cursor += n + 1;
		if (n > key_len && strncmp(at, key, key_len) == 0 && at[key_len] == '=')
			return at + key_len + 1;
	}
	return NULL;
}

/* ---- the tree ---- */

struct entry {
	char name[NAME_MAX_LEN];	/* with "_" */
	char *path;	/* NULL: built into the kernel */
	enum { UNSEEN, OPEN, LISTED } state;
};

struct tree {
	struct entry *at;
	size_t count, cap;
};

struct loader {
	struct tree tree;
	struct module_list list;
	size_t cap;
};

/*
 * Turns a file name into a module name: "virtio-rng.ko.xz" is virtio_rng.
 * Returns false for other files and for names no module can have.
 */
static bool to_name(const char *file, size_t len, char ret_name[NAME_MAX_LEN])
{
	const char *end = memmem(file, len, ".ko", 3);
	size_t n = end ? (size_t)(end - file) : len;

	if (!end || n == 0 || n >= NAME_MAX_LEN)
		return false;
	for (size_t i = 0; i < n; i++)
		ret_name[i] = file[i] == '-' ? '_' : file[i];
	ret_name[n] = '\0';
	return true;
}

/* Takes ownership of @path (NULL: built in).  0 or -ENOMEM. */
static int add_entry(struct tree *tree, const char *name, char *path)
{
	if (tree->count == tree->cap) {
		size_t cap = tree->cap ? tree->cap * 2 : 512;
		struct entry *more = realloc(tree->at, cap * sizeof(*more));

		if (!more) {
			free(path);
			return -ENOMEM;
		}
		tree->at = more;
		tree->cap = cap;
	}
	tree->at[tree->count] = (struct entry){ .path = path };
	memcpy(tree->at[tree->count].name, name, strlen(name) + 1);
	tree->count++;
	return 0;
}

static int scan_dir(struct tree *tree, const char *path, unsigned depth, struct err *err);

static int scan_entry(struct tree *tree, const char *dir, const struct dirent *e, unsigned depth,
		      struct err *err)
{
	char path[PATH_MAX], name[NAME_MAX_LEN];
	struct stat st;
	int r;

	if (e->d_name[0] == '.')
		return 0;
	r = file_path(path, err, dir, "/", e->d_name, NULL);
	if (r < 0)
		return r;
	if (lstat(path, &st) < 0)
		return err_set(err, -errno, "%s: %s", path, strerror(errno));
	if (S_ISDIR(st.st_mode))
		return scan_dir(tree, path, depth + 1, err);
	if (!S_ISREG(st.st_mode) || !to_name(e->d_name, strlen(e->d_name), name))
		return 0;
	return add_entry(tree, name, strdup(path));
}

static int scan_dir(struct tree *tree, const char *path, unsigned depth, struct err *err)
{
	DIR *dir = depth < DEPTH_MAX ? opendir(path) : NULL;
	struct dirent *e;
	int r = 0;

	if (!dir)
		return err_set(err, depth < DEPTH_MAX ? -errno : -ELOOP, "cannot read folder %s", path);
	while (r == 0 && (e = readdir(dir)))
		r = scan_entry(tree, path, e, depth, err);
	closedir(dir);
	return r;
}

/* modules.builtin: one path like kernel/fs/ext4/ext4.ko a line. */
static int scan_builtin(struct tree *tree, const char *dir, struct err *err)
{
	char path[PATH_MAX], name[NAME_MAX_LEN], *text, *line, *save = NULL;
	size_t len;
	int r = file_path(path, err, dir, "/modules.builtin", NULL);

	if (r == 0)
		r = file_read_all(path, BUILTIN_MAX, &text, &len, err);
	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return r;
	for (line = strtok_r(text, "\n", &save); line && r == 0; line = strtok_r(NULL, "\n", &save)) {
		const char *slash = strrchr(line, '/');
		const char *file = slash ? slash + 1 : line;

		if (to_name(file, strlen(file), name))
			r = add_entry(tree, name, NULL);
	}
	free(text);
	return r;
}

static struct entry *find_entry(struct tree *tree, const char *name, size_t len)
{
	for (size_t i = 0; i < tree->count; i++) {
		const char *have = tree->at[i].name;
		size_t n = 0;

		while (n < len && have[n] && have[n] == (name[n] == '-' ? '_' : name[n]))
			n++;
		if (n == len && have[n] == '\0')
			return &tree->at[i];
	}
	return NULL;
}

/* ---- loading ---- */

static int load(struct loader *l, const char *name, size_t len, bool optional, unsigned depth,
		struct err *err);

/* The modules of a list "a,b" or "pre: a b post: c" of which only the part before counts. */
static int load_listed(struct loader *l, const char *names, const char *seps, bool optional,
		       unsigned depth, struct err *err)
{
	int r = 0;

	while (r == 0 && *(names += strspn(names, seps))) {
		size_t n = strcspn(names, seps);

		if (names[n - 1] == ':')
			break;
		r = load(l, names, n, optional, depth, err);
		names += n;
	}
	return r;
}

static int load_needed(struct loader *l, const struct module *m, unsigned depth, struct err *err)
{
	size_t cursor = 0;
	const char *value = module_info(m->data, m->len, "depends", &cursor);
	int r;

	if (!value)
		return err_set(err, -EBADMSG, "module %s is damaged: fetch the kernel again", m->name);
	r = load_listed(l, value, ",", false, depth, err);
	for (cursor = 0; r == 0 && (value = module_info(m->data, m->len, "softdep", &cursor));)
		if (strncmp(value, "pre: ", 5) == 0)
			r = load_listed(l, value + 5, " ", true, depth, err);
	return r;
}

static int append(struct loader *l, const struct module *m)
{
	if (l->list.count == l->cap) {
		size_t cap = l->cap ? l->cap * 2 : 32;
		struct module *more = realloc(l->list.at, cap * sizeof(*more));

		if (!more)
			return -ENOMEM;
		l->list.at = more;
		l->cap = cap;
	}
	l->list.at[l->list.count++] = *m;
	return 0;
}

static void free_module(struct module *m)
{
	free(m->name);
	free(m->data);
}

static int load(struct loader *l, const char *name, size_t len, bool optional, unsigned depth,
		struct err *err)
{
	struct entry *e = find_entry(&l->tree, name, len);
	struct module m = { .name = NULL };
	int r;

	if (!e && optional)
		return 0;
	if (!e)
		return err_set(err, -ENOENT, "this kernel has no module %.*s", (int)len, name);
	if (!e->path || e->state == LISTED)
		return 0;
	if (e->state == OPEN || depth == DEPTH_MAX)
		return err_set(err, -ELOOP, "module %s needs itself", e->name);
	e->state = OPEN;
	r = archive_read_file(e->path, MODULE_MAX, &m.data, &m.len, err);
	if (r < 0)
		return r;
	m.name = strdup(e->name);
	r = m.name ? load_needed(l, &m, depth + 1, err) : -ENOMEM;
	if (r == 0)
		r = append(l, &m);
	if (r < 0)
		free_module(&m);
	e->state = LISTED;
	return r;
}

static void free_tree(struct tree *tree)
{
	for (size_t i = 0; i < tree->count; i++)
		free(tree->at[i].path);
	free(tree->at);
}

int module_list_load(const char *dir, const char *const names[], struct module_list *ret_list,
		     struct err *err)
{
	struct loader l = { .cap = 0 };
	int r = scan_builtin(&l.tree, dir, err);

	if (r == 0)
		r = scan_dir(&l.tree, dir, 0, err);
	for (; r == 0 && *names; names++) {
		bool optional = **names == '?';
		const char *name = *names + optional;

		r = load(&l, name, strlen(name), optional, 0, err);
	}
	free_tree(&l.tree);
	if (r < 0) {
		module_list_free(&l.list);
		return r == -ENOMEM ? err_set(err, r, "out of memory for kernel modules") : r;
	}
	*ret_list = l.list;
	return 0;
}

void module_list_free(struct module_list *list)
{
	for (size_t i = 0; i < list->count; i++)
		free_module(&list->at[i]);
	free(list->at);
	*list = (struct module_list){ .count = 0 };
}
