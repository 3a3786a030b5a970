/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a guest sends when files are copied out of it.  Whatever it is, nothing appears
 * beside the folder that was meant to take it.
 */
#include "copy/tree.h"
#include "tests/fuzz/check.h"

#include <dirent.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static char top[64], target[96];

static void remove_all(int dir, const char *name)
{
	int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	struct dirent *e;
	DIR *d;

	if (fd < 0 && unlinkat(dir, name, 0) == 0)
		return;
	if (fd < 0) {	/* a folder whose mode keeps us out */
		want(fchmodat(dir, name, 0700, 0) == 0);
		fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	}
	want(fd >= 0 && fchmod(fd, 0700) == 0);
	d = fdopendir(fd);
	want(d);
	while ((e = readdir(d)))
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			remove_all(dirfd(d), e->d_name);
	(void)closedir(d);
	want(unlinkat(dir, name, AT_REMOVEDIR) == 0);
}

static unsigned entries(const char *path)
{
	DIR *d = opendir(path);
	unsigned n = 0;

	want(d);
	while (readdir(d))
		n++;
	(void)closedir(d);
	return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static uint8_t buf[TREE_BUF_MIN];
	struct tree_input in = { .buf = buf, .cap = sizeof(buf) };
	struct tree_error error = { 0 };
	int pair[2], before;

	if (!*top) {
		(void)snprintf(top, sizeof(top), "/tmp/roux-fuzz-tree-XXXXXX");
		want(mkdtemp(top));
		(void)snprintf(target, sizeof(target), "%s/target", top);
	}
	before = free_descriptor();
	want(mkdir(target, 0700) == 0 && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
	in.fd = pair[0];
	(void)send(pair[1], data, len, MSG_DONTWAIT | MSG_NOSIGNAL);
	(void)close(pair[1]);
	if (tree_receive(&in, target, len && data[len - 1] & 1 ? "name" : "", false, &error) < 0)
		want(error.what[0] && memchr(error.what, 0, sizeof(error.what)));
	(void)close(pair[0]);
	want(entries(top) == 3);	/* with . and .. */
	remove_all(AT_FDCWD, target);
	want(free_descriptor() == before);
	return 0;
}
