/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/gdb.h"

#include "base/checked.h"
#include "machine/gdb_regs.h"
#include "vmm/vcpu_state.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INTERRUPT 0x03
#define MEMORY_MAX ((GDB_PACKET_MAX - 16) / 2)	/* bytes in one packet, as hex digits */

enum phase { IDLE, IN_PACKET, IN_ESCAPE, SUM_HIGH, SUM_LOW };

struct gdb {
	const struct gdb_target *target;
	char *xml;
	struct gdb_stop stop;	/* the last */
	bool running, no_ack, detached;
	bool swbreak, hwbreak;	/* GDB understands these reasons */
	unsigned thread;	/* of register and memory packets */
	unsigned resume_thread;	/* of c and s; GDB_THREADS_MAX: all */

	enum phase phase;
	char in[GDB_PACKET_MAX + 1];	/* NUL added; may have others inside */
	size_t in_len;
	uint8_t sum, want;	/* of the bytes so far; as sent */
	bool too_long;

	char out[GDB_PACKET_MAX + 8];	/* "$", reply, "#xx"; kept for retransmission */
	size_t out_len;
};

/* -------------------------------------------------------------------- replies */

static const char digits[] = "0123456789abcdef";

static void out_begin(struct gdb *g)
{
	g->out[0] = '$';
	g->out_len = 1;
}

static void out_text(struct gdb *g, const char *text)
{
	size_t n = strlen(text), room = GDB_PACKET_MAX + 1 - g->out_len;

	n = n < room ? n : room;
	memcpy(g->out + g->out_len, text, n);
	g->out_len += n;
}

__attribute__((format(printf, 2, 3)))
static void out_print(struct gdb *g, const char *fmt, ...)
{
	char text[256];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	out_text(g, text);
}

static void out_hex(struct gdb *g, const uint8_t *data, size_t len)
{
	for (size_t i = 0; i < len && g->out_len + 2 <= GDB_PACKET_MAX; i++) {
		g->out[g->out_len++] = digits[data[i] >> 4];
		g->out[g->out_len++] = digits[data[i] & 15];
	}
}

static void out_end(struct gdb *g)
{
	uint8_t sum = 0;

	for (size_t i = 1; i < g->out_len; i++)
		sum += (uint8_t)g->out[i];
	g->out[g->out_len++] = '#';
	g->out[g->out_len++] = digits[sum >> 4];
	g->out[g->out_len++] = digits[sum & 15];
	g->target->send(g->target->ctx, g->out, g->out_len);
}

static void reply(struct gdb *g, const char *text)
{
	out_begin(g);
	out_text(g, text);
	out_end(g);
}

/* "OK", or the error number in the form that GDB shows. */
static void reply_result(struct gdb *g, int r)
{
	out_begin(g);
	if (r < 0)
		out_print(g, "E%02x", (unsigned)-r & 0xff);
	else
		out_text(g, "OK");
	out_end(g);
}

static void reply_stop(struct gdb *g)
{
	static const char *const names[] = { [GDB_WATCH_WRITE] = "watch", [GDB_WATCH_READ] = "rwatch",
					     [GDB_WATCH_ACCESS] = "awatch" };
	const struct gdb_stop *s = &g->stop;

	out_begin(g);
	out_print(g, "T%02xthread:%x;", (unsigned)s->signal, s->thread + 1);
	if (s->why == GDB_WHY_POINT && s->point >= GDB_WATCH_WRITE)
		out_print(g, "%s:%llx;", names[s->point], (unsigned long long)s->addr);
	else if (s->why == GDB_WHY_POINT && s->point == GDB_SOFTWARE && g->swbreak)
		out_text(g, "swbreak:;");
	else if (s->why == GDB_WHY_POINT && s->point == GDB_HARDWARE && g->hwbreak)
		out_text(g, "hwbreak:;");
	out_end(g);
}

/* -------------------------------------------------------------------- parsing */

static int digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Takes a hexadecimal number off the front of *@p. */
static bool take_number(const char **p, uint64_t *ret)
{
	const char *start = *p;
	uint64_t v = 0;

	for (; digit(**p) >= 0; (*p)++) {
		if (v >> 60)
			return false;
		v = v << 4 | (uint64_t)digit(**p);
	}
	*ret = v;
	return *p != start;
}

static bool take_char(const char **p, char c)
{
	if (**p != c)
		return false;
	(*p)++;
	return true;
}

static bool take_word(const char **p, const char *word)
{
	size_t n = strlen(word);

	if (strncmp(*p, word, n) != 0)
		return false;
	*p += n;
	return true;
}

/* Exactly @len bytes of hex digits. */
static bool take_bytes(const char **p, uint8_t *buf, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		int hi = digit((*p)[0]), lo = hi < 0 ? -1 : digit((*p)[1]);

		if (lo < 0)
			return false;
		buf[i] = (uint8_t)(hi << 4 | lo);
		*p += 2;
	}
	return true;
}

/* A thread id: -1 (all) and 0 (any) give GDB_THREADS_MAX. */
static bool take_thread(const struct gdb *g, const char **p, unsigned *ret)
{
	uint64_t id;

	*ret = GDB_THREADS_MAX;
	if (take_word(p, "-1"))
		return true;
	if (!take_number(p, &id) || id > g->target->nthreads)
		return false;
	if (id)
		*ret = (unsigned)id - 1;
	return true;
}

static bool take_range(const char **p, uint64_t *ret_at, uint64_t *ret_len)
{
	return take_number(p, ret_at) && take_char(p, ',') && take_number(p, ret_len);
}

/* ------------------------------------------------------- registers and memory */

static void read_registers(struct gdb *g, unsigned first, unsigned n)
{
	const struct vcpu_state *s = g->target->state(g->target->ctx, g->thread, false);
	uint8_t buf[GDB_REG_MAX];

	if (!s || first + n > gdb_regs_count()) {
		reply_result(g, -EINVAL);
		return;
	}
	out_begin(g);
	for (unsigned i = first; i < first + n; i++) {
		gdb_reg_read(s, i, buf);
		out_hex(g, buf, gdb_reg_size(i));
	}
	out_end(g);
}

static void write_registers(struct gdb *g, const char *p, unsigned first, unsigned n)
{
	struct vcpu_state *s = g->target->state(g->target->ctx, g->thread, true);
	uint8_t buf[GDB_REG_MAX];

	if (!s || first + n > gdb_regs_count()) {
		reply_result(g, -EINVAL);
		return;
	}
	for (unsigned i = first; i < first + n; i++) {
		if (!take_bytes(&p, buf, gdb_reg_size(i))) {
			reply_result(g, -EINVAL);
			return;
		}
		gdb_reg_write(s, i, buf);
	}
	reply_result(g, *p ? -EINVAL : 0);
}

static void one_register(struct gdb *g, const char *p, bool write)
{
	uint64_t n;

	if (!take_number(&p, &n) || n >= gdb_regs_count() || (write && !take_char(&p, '=')))
		reply_result(g, -EINVAL);
	else if (write)
		write_registers(g, p, (unsigned)n, 1);
	else
		read_registers(g, (unsigned)n, 1);
}

static void read_memory(struct gdb *g, const char *p)
{
	uint8_t buf[MEMORY_MAX];
	uint64_t at, len;
	int r;

	if (!take_range(&p, &at, &len) || *p) {
		reply_result(g, -EINVAL);
		return;
	}
	len = len < sizeof(buf) ? len : sizeof(buf);
	r = g->target->read(g->target->ctx, g->thread, at, buf, len);
	/* A piece that ends where the mapping does is better than none. */
	if (r < 0 && (at & 4095) + len > 4096) {
		len = 4096 - (at & 4095);
		r = g->target->read(g->target->ctx, g->thread, at, buf, len);
	}
	if (r < 0) {
		reply_result(g, r);
		return;
	}
	out_begin(g);
	out_hex(g, buf, len);
	out_end(g);
}

static void write_memory(struct gdb *g, const char *p, bool binary)
{
	size_t here;
	uint8_t buf[GDB_PACKET_MAX];
	uint64_t at, len;

	if (!take_range(&p, &at, &len) || !take_char(&p, ':') || len > sizeof(buf)) {
		reply_result(g, -EINVAL);
		return;
	}
	here = g->in_len - (size_t)(p - g->in);
	if (binary ? here != len : here != 2 * len || !take_bytes(&p, buf, len)) {
		reply_result(g, -EINVAL);
		return;
	}
	reply_result(g, g->target->write(g->target->ctx, g->thread, at, binary ? (const void *)p : buf, len));
}

static void change_point(struct gdb *g, const char *p, bool set)
{
	uint64_t type, at, len;
	int r;

	if (!take_number(&p, &type) || !take_char(&p, ',') || !take_range(&p, &at, &len)) {
		reply_result(g, -EINVAL);
		return;
	}
	if (type > GDB_WATCH_ACCESS) {
		reply(g, "");
		return;
	}
	r = g->target->point(g->target->ctx, g->thread, (enum gdb_point)type, at, len, set);
	reply_result(g, r);
}

/* -------------------------------------------------------------------- running */

static void resume(struct gdb *g, const enum gdb_action *action)
{
	g->running = true;
	g->target->resume(g->target->ctx, action);
}

/* c and s, with the address to go on at if any. */
static void resume_old(struct gdb *g, const char *p, enum gdb_action what)
{
	enum gdb_action action[GDB_THREADS_MAX];
	unsigned one = g->resume_thread < GDB_THREADS_MAX ? g->resume_thread : g->thread;
	struct vcpu_state *s;
	uint64_t rip;

	if (take_number(&p, &rip)) {
		s = g->target->state(g->target->ctx, one, true);
		if (s)
			s->rip = rip;
	}
	for (unsigned i = 0; i < g->target->nthreads; i++)
		action[i] = g->resume_thread < GDB_THREADS_MAX ? GDB_HOLD : GDB_CONTINUE;
	action[one] = what;
	resume(g, action);
}

/* ;ACTION[:THREAD]...  For each thread the first that fits counts. */
static bool parse_actions(const struct gdb *g, const char *p, enum gdb_action *action)
{
	bool given[GDB_THREADS_MAX] = { false };
	unsigned thread;
	uint64_t signo;

	for (unsigned i = 0; i < g->target->nthreads; i++)
		action[i] = GDB_HOLD;
	while (take_char(&p, ';')) {
		enum gdb_action what = *p == 's' || *p == 'S' ? GDB_STEP : GDB_CONTINUE;
		bool with_signal = *p == 'C' || *p == 'S';

		if (!*p || !strchr("cCsS", *p++) || (with_signal && !take_number(&p, &signo)))
			return false;
		thread = GDB_THREADS_MAX;
		if (take_char(&p, ':') && !take_thread(g, &p, &thread))
			return false;
		for (unsigned i = 0; i < g->target->nthreads; i++)
			if (!given[i] && (thread == i || thread == GDB_THREADS_MAX)) {
				given[i] = true;
				action[i] = what;
			}
	}
	return !*p;
}

static void resume_new(struct gdb *g, const char *p)
{
	enum gdb_action action[GDB_THREADS_MAX];
	bool any = false;

	if (!parse_actions(g, p, action)) {
		reply_result(g, -EINVAL);
		return;
	}
	for (unsigned i = 0; i < g->target->nthreads; i++)
		any |= action[i] != GDB_HOLD;
	if (any)
		resume(g, action);
	else
		reply_result(g, -EINVAL);	/* nothing would ever stop again */
}

static void detach(struct gdb *g, bool kill)
{
	g->detached = true;
	g->target->detach(g->target->ctx, kill);
}

/* -------------------------------------------------------------------- queries */

static void transfer(struct gdb *g, const char *p, const char *whole)
{
	uint64_t off, len;
	size_t size = strlen(whole);

	if (!take_range(&p, &off, &len) || *p || off > size) {
		reply_result(g, -EINVAL);
		return;
	}
	len = len < GDB_PACKET_MAX - 1 ? len : GDB_PACKET_MAX - 1;
	out_begin(g);
	out_text(g, off + len < size ? "m" : "l");
	for (uint64_t i = off; i < off + len && i < size; i++)	/* our XML has none of $#}* */
		g->out[g->out_len++] = whole[i];
	out_end(g);
}

static void supported(struct gdb *g, const char *p)
{
	g->swbreak = strstr(p, "swbreak+") != NULL;
	g->hwbreak = strstr(p, "hwbreak+") != NULL;
	out_begin(g);
	out_print(g, "PacketSize=%x;qXfer:features:read+;QStartNoAckMode+;vContSupported+;swbreak+;hwbreak+",
		  GDB_PACKET_MAX);
	out_end(g);
}

static void list_threads(struct gdb *g)
{
	out_begin(g);
	for (unsigned i = 0; i < g->target->nthreads; i++)
		out_print(g, "%s%x", i ? "," : "m", i + 1);
	out_end(g);
}

static void describe_thread(struct gdb *g, const char *p)
{
	const struct vcpu_state *s;
	char text[64];
	unsigned thread;
	int n;

	if (!take_thread(g, &p, &thread) || thread == GDB_THREADS_MAX) {
		reply_result(g, -EINVAL);
		return;
	}
	s = g->target->state(g->target->ctx, thread, false);
	n = snprintf(text, sizeof(text), "vCPU %u, ring %u%s", thread, s ? s->seg[SEG_CS].sel & 3u : 0,
		     !s || s->mp_state == MP_RUNNABLE ? "" : s->mp_state == MP_HALTED ? ", halted" : ", not started");
	out_begin(g);
	out_hex(g, (const uint8_t *)text, (size_t)n);
	out_end(g);
}

static void query(struct gdb *g, const char *p)
{
	if (take_word(&p, "Supported"))
		supported(g, p);
	else if (take_word(&p, "Xfer:features:read:target.xml:"))
		transfer(g, p, g->xml);
	else if (strcmp(p, "fThreadInfo") == 0)
		list_threads(g);
	else if (strcmp(p, "sThreadInfo") == 0)
		reply(g, "l");
	else if (take_word(&p, "ThreadExtraInfo,"))
		describe_thread(g, p);
	else if (strcmp(p, "C") == 0) {
		out_begin(g);
		out_print(g, "QC%x", g->thread + 1);
		out_end(g);
	} else if (strcmp(p, "Attached") == 0)
		reply(g, "1");
	else
		reply(g, "");
}

static void select_thread(struct gdb *g, const char *p)
{
	char what = *p ? *p++ : '\0';
	unsigned thread;

	if ((what != 'g' && what != 'c') || !take_thread(g, &p, &thread)) {
		reply_result(g, -EINVAL);
		return;
	}
	if (what == 'c')
		g->resume_thread = thread;
	else if (thread < GDB_THREADS_MAX)
		g->thread = thread;
	reply_result(g, 0);
}

static void thread_alive(struct gdb *g, const char *p)
{
	unsigned thread;

	reply_result(g, take_thread(g, &p, &thread) && thread < GDB_THREADS_MAX ? 0 : -ESRCH);
}

static void multi_letter(struct gdb *g, const char *p)
{
	if (strcmp(p, "Cont?") == 0) {
		reply(g, "vCont;c;C;s;S");
	} else if (take_word(&p, "Cont")) {
		resume_new(g, p);
	} else if (take_word(&p, "Kill")) {
		reply(g, "OK");
		detach(g, true);
	} else {
		reply(g, "");
	}
}

/* One packet, in g->in. */
static void handle(struct gdb *g)
{
	const char *p = g->in + 1;
	uint64_t signo;

	switch (g->in[0]) {
	case '?': reply_stop(g); break;
	case 'g': read_registers(g, 0, gdb_regs_count()); break;
	case 'G': write_registers(g, p, 0, gdb_regs_count()); break;
	case 'p': one_register(g, p, false); break;
	case 'P': one_register(g, p, true); break;
	case 'm': read_memory(g, p); break;
	case 'M': write_memory(g, p, false); break;
	case 'X': write_memory(g, p, true); break;
	case 'Z': change_point(g, p, true); break;
	case 'z': change_point(g, p, false); break;
	case 'C':
	case 'S':	/* a machine takes no signals */
		(void)take_number(&p, &signo);
		(void)take_char(&p, ';');
		resume_old(g, p, g->in[0] == 'S' ? GDB_STEP : GDB_CONTINUE);
		break;
	case 'c': resume_old(g, p, GDB_CONTINUE); break;
	case 's': resume_old(g, p, GDB_STEP); break;
	case 'v': multi_letter(g, p); break;
	case 'q': query(g, p); break;
	case 'Q':
		if (strcmp(p, "StartNoAckMode") == 0) {
			reply(g, "OK");
			g->no_ack = true;
		} else {
			reply(g, "");
		}
		break;
	case 'H': select_thread(g, p); break;
	case 'T': thread_alive(g, p); break;
	case 'D':
		reply(g, "OK");
		detach(g, false);
		break;
	case 'k': detach(g, true); break;
	default: reply(g, ""); break;
	}
}

/* -------------------------------------------------------------------- framing */

static void packet_done(struct gdb *g, uint8_t sum)
{
	bool good = sum == g->sum && !g->too_long;

	if (!g->no_ack)
		g->target->send(g->target->ctx, good ? "+" : "-", 1);
	/* While the machine runs GDB has nothing to say but 0x03. */
	if (!good || g->running)
		return;
	g->in[g->in_len] = '\0';
	handle(g);
}

static void add_byte(struct gdb *g, uint8_t c)
{
	if (g->in_len < GDB_PACKET_MAX)
		g->in[g->in_len++] = (char)c;
	else
		g->too_long = true;
}

static void take_byte(struct gdb *g, uint8_t c)
{
	switch (g->phase) {
	case IDLE:
		if (c == '$') {
			g->phase = IN_PACKET;
			g->in_len = 0;
			g->sum = 0;
			g->too_long = false;
		} else if (c == INTERRUPT && g->running) {
			g->target->interrupt(g->target->ctx);
		} else if (c == '-' && g->out_len && !g->no_ack) {
			g->target->send(g->target->ctx, g->out, g->out_len);
		}
		break;
	case IN_PACKET:
		if (c == '#') {
			g->phase = SUM_HIGH;
			break;
		}
		g->sum += c;
		if (c == '}')
			g->phase = IN_ESCAPE;
		else
			add_byte(g, c);
		break;
	case IN_ESCAPE:
		g->sum += c;
		add_byte(g, c ^ 0x20);
		g->phase = IN_PACKET;
		break;
	case SUM_HIGH:
		g->want = (uint8_t)((unsigned)digit((char)c) << 4);
		g->phase = SUM_LOW;
		break;
	case SUM_LOW:
		g->phase = IDLE;
		packet_done(g, (uint8_t)(g->want | ((unsigned)digit((char)c) & 15)));
		break;
	}
}

bool gdb_input(struct gdb *g, const uint8_t *data, size_t len)
{
	for (size_t i = 0; i < len && !g->detached; i++)
		take_byte(g, data[i]);
	return !g->detached;
}

void gdb_stopped(struct gdb *g, const struct gdb_stop *stop)
{
	g->stop = *stop;
	g->thread = stop->thread;
	if (!g->running)
		return;
	g->running = false;
	reply_stop(g);
}

void gdb_exited(struct gdb *g)
{
	if (g->running)
		reply(g, "W00");
	g->running = false;
}

struct gdb *gdb_create(const struct gdb_target *target, const struct gdb_stop *stop)
{
	struct gdb *g = calloc(1, sizeof(*g));

	if (!g)
		return NULL;
	g->target = target;
	g->stop = *stop;
	g->thread = stop->thread;
	g->resume_thread = GDB_THREADS_MAX;
	g->xml = gdb_regs_xml();
	if (!g->xml) {
		free(g);
		return NULL;
	}
	return g;
}

void gdb_destroy(struct gdb *g)
{
	if (!g)
		return;
	free(g->xml);
	free(g);
}
