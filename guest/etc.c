/* SPDX-License-Identifier: Apache-2.0 */
#include "guest/etc.h"

#include "guest/text.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef OPEN_TREE_CLONE	/* Linux 5.2, and not in every C library */
#define OPEN_TREE_CLONE 1
#define OPEN_TREE_CLOEXEC O_CLOEXEC
#endif

#define ETC "/etc"

static int etc = -1;

void etc_open(void)
{
	/* A mount of its own: it does not become read-only with the root's. */
	etc = (int)syscall(SYS_open_tree, AT_FDCWD, ETC, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	if (etc < 0)
		etc = open(ETC, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

/* A new file in place of what the image has there, be it a link to a program's file.  -1: it cannot be written. */
static int begin(const char *name)
{
	(void)unlinkat(etc, name, 0);
	return openat(etc, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
}

static void put(int fd, const char *str)
{
	if (fd >= 0 && write(fd, str, strlen(str)) < 0)
		say("cannot write to " ETC, errno);
}

static void put_line(int fd, const char *key, const char *value)
{
	put(fd, key);
	put(fd, value);
	put(fd, "\n");
}

static void end(int fd)
{
	if (fd >= 0)
		close(fd);
}

static void write_hosts(const struct conf *conf)
{
	int fd = begin("hosts");

	put(fd, "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
		"ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n");
	for (unsigned i = 0; i < conf->naddresses; i++) {
		if (conf_is_link_local(conf->address[i].addr))
			continue;
		put(fd, conf->address[i].addr);
		put_line(fd, "\t", conf->hostname);
	}
	for (unsigned i = 0; i < conf->nhosts; i++) {
		put(fd, conf->host[i].addr);
		put_line(fd, "\t", conf->host[i].name);
	}
	end(fd);
}

void etc_write(const struct conf *conf)
{
	int fd;

	if (etc < 0 || (!conf->interface && !conf->naddresses && !conf->nhosts && !conf->nnameservers))
		return;
	write_hosts(conf);
	fd = begin("hostname");
	put_line(fd, "", conf->hostname);
	end(fd);
	if (!conf->nnameservers)
		return;
	fd = begin("resolv.conf");
	if (conf->search)
		put_line(fd, "search ", conf->search);
	for (unsigned i = 0; i < conf->nnameservers; i++)
		put_line(fd, "nameserver ", conf->nameserver[i]);
	end(fd);
}

void etc_write_machine_id(const char *id)
{
	int fd = etc < 0 ? -1 : openat(etc, "machine-id", O_WRONLY | O_TRUNC | O_NOFOLLOW | O_CLOEXEC);

	put_line(fd, "", id ? id : "uninitialized");
	end(fd);
}
