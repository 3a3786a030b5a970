/* SPDX-License-Identifier: Apache-2.0 */
#include "guest/identity.h"

#include "guest/etc.h"
#include "guest/network.h"
#include "guest/streams.h"
#include "guest/text.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#ifndef RNDRESEEDCRNG	/* Linux 4.16 */
#define RNDRESEEDCRNG _IO('R', 0x07)
#endif

static struct conf *booted;

void identity_begin(struct conf *conf)
{
	booted = conf;
}

/* All that the kernel's generator gives from here on depends on @seed. */
static int reseed(const uint8_t *seed, size_t len)
{
	_Alignas(struct rand_pool_info) uint8_t buf[sizeof(struct rand_pool_info) + IDENTITY_SEED_MAX];
	struct rand_pool_info *entropy = (struct rand_pool_info *)(void *)buf;
	int fd = open("/dev/urandom", O_WRONLY | O_CLOEXEC), r = -1;

	if (fd < 0)
		return -1;
	entropy->entropy_count = (int)len * 8;
	entropy->buf_size = (int)len;
	memcpy(entropy->buf, seed, len);
	if (ioctl(fd, RNDADDENTROPY, entropy) == 0)
		r = ioctl(fd, RNDRESEEDCRNG);
	close(fd);
	return r;
}

static int take_name(const char *name)
{
	if (sethostname(name, strlen(name)) < 0)
		return -1;
	if (booted)
		booted->hostname = name;
	return 0;
}

int identity_take(const struct identity_request *id)
{
	struct timespec now = { .tv_sec = (time_t)(id->clock_ns / 1000000000u), .tv_nsec = (long)(id->clock_ns % 1000000000u) };

	if (id->seed_len && reseed(id->seed, id->seed_len) < 0)
		return -1;
	if (id->clock_ns && clock_settime(CLOCK_REALTIME, &now) < 0)
		return -1;
	/* A kernel that cannot has its programs find out by themselves. */
	if (booted && id->reset && streams_reset(id) < 0)
		say("cannot reset connections", errno);
	if (booted && (id->nleft || id->ntaken || id->mac) && network_move(id, booted) < 0)
		return -1;
	if (id->hostname && take_name(id->hostname) < 0)
		return -1;
	if (booted && (id->hostname || id->ntaken))
		etc_write(booted);
	if (booted && booted->overlay && id->machine_id)
		etc_write_machine_id(id->machine_id);
	return 0;
}
