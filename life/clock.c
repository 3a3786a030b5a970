/* SPDX-License-Identifier: Apache-2.0 */
#include "life/clock.h"

#include "abi/agent.h"
#include "base/frame.h"
#include "life/call.h"
#include "life/when.h"
#include "os/loop.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define ANSWER_MS 30000	/* it may have been suspended as long as the host */
#define NEVER_S (INT64_MAX / 1000000000)	/* since 1970: as far as the kernel's clock goes */

struct clock_watch {
	struct monitor *m;
	struct loop_source *source;
	struct call *call;	/* the guest is being told, or NULL */
	int fd;	/* timerfd_create(2): whose reads fail when the clock has jumped */
	bool due;	/* again, or when it goes on */
};

static void tell(struct clock_watch *w);

static void on_told(void *ctx, const uint8_t *frames, size_t len)
{
	struct clock_watch *w = ctx;

	w->call = NULL;
	if (w->due)
		tell(w);
}

static void tell(struct clock_watch *w)
{
	uint8_t frame[64];
	struct frame_writer writer;

	w->due = w->call || w->m->record.state.status == VM_PAUSED;
	if (w->due)
		return;
	frame_begin(&writer, frame, sizeof(frame), AGENT_CLOCK);
	field_put_u64(&writer, AGENT_TAG_CLOCK_NS, (uint64_t)when_now());
	w->call = call_begin(w->m, frame, frame_end(&writer), ANSWER_MS, on_told, w);
}

static void on_jump(void *ctx, uint32_t events)
{
	struct clock_watch *w = ctx;
	uint64_t times;

	(void)events;
	if (read(w->fd, &times, sizeof(times)) < 0 && errno == ECANCELED)
		tell(w);
}

void clock_begin(struct monitor *m)
{
	const struct itimerspec never = { .it_value = { .tv_sec = NEVER_S } };
	struct clock_watch *w = calloc(1, sizeof(*w));

	if (!w)
		return;
	w->m = m;
	w->fd = timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK | TFD_CLOEXEC);
	if (w->fd < 0 || timerfd_settime(w->fd, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &never, NULL) < 0 ||
	    loop_add_fd(m->loop, w->fd, EPOLLIN, on_jump, w, &w->source, NULL) < 0) {
		if (w->fd >= 0)
			(void)close(w->fd);
		free(w);
		return;
	}
	m->clock = w;
}

void clock_end(struct monitor *m)
{
	struct clock_watch *w = m->clock;

	m->clock = NULL;
	if (!w)
		return;
	if (w->call)
		call_cancel(w->call);
	loop_remove(w->source);
	(void)close(w->fd);
	free(w);
}

void clock_catch_up(struct monitor *m)
{
	if (m->clock && m->clock->due)
		tell(m->clock);
}
