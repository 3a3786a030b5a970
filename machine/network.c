/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/network.h"

#include "link/link.h"
#include "machine/spec.h"
#include "os/err.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static int create_tap(struct loop *loop, const struct spec_net *net, struct link **ret_link, struct err *err)
{
	int fd = link_tap_open(net->name, err), r;

	if (fd < 0)
		return fd;
	r = link_tap_create(loop, fd, net->mac, net->mtu, ret_link, err);
	if (r < 0)
		(void)close(fd);
	return r;
}

static int open_pcap(struct link *link, const char *path, struct err *err)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	return fd < 0 ? err_set(err, -errno, "pcap file %s: %s", path, strerror(errno)) :
			link_capture(link, fd, err);
}

int network_create(struct loop *loop, const struct spec_net *net, struct link **ret_link, struct err *err)
{
	struct link *link;
	int r = create_tap(loop, net, &link, err);

	if (r < 0)
		return r;
	r = link_limit(link, &net->send, &net->receive, err);
	if (r == 0 && net->pcap)
		r = open_pcap(link, net->pcap, err);
	if (r < 0) {
		link_destroy(link);
		return r;
	}
	*ret_link = link;
	return 0;
}
