/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One blob on its way:
 *
 *   WAITING --(its time has come, a place is free)--> MOVING --(whole, verified)--> DONE
 *      ^                                                 |
 *      +---- transient failure: pause; refused: token ---+
 *
 * A blob that goes on where it was cut off asks for a range; when the registry
 * sends all of it instead, or the whole turns out wrong, it begins anew, once.
 */
#include "oci/transfer.h"

#include "oci/local.h"
#include "oci/registry.h"
#include "os/err.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PARALLEL 4 /* downloads at once */
#define BUSY_MS 200 /* between looks at what another process fetches */
#define PROGRESS_MS 100
#define WORTH_BYTES (64u * 1024u) /* progress after which failures count anew */

enum fetch_state { FETCH_WAITING, FETCH_MOVING, FETCH_DONE };

struct fetch {
	const struct descriptor *desc;	/* borrowed */
	enum fetch_state state;
	uint64_t not_before_ms;
	unsigned attempts;
	uint64_t attempt_from;	/* bytes there when this attempt began */
	bool resumed, restarted, asked;
	struct store_writer w;	/* w.fd -1: none */
	struct http_call call;
	struct err err;	/* of the writer, when it ended the call */
};

struct pull {
	struct store *store;
	struct store_lease *lease;
	const struct oci_transfer *t;
	struct registry *registry;
	const struct reference *ref;
	char scope[REFERENCE_PART_MAX + 32];
	struct fetch *fetch[MANIFEST_LAYERS_MAX + 1];	/* owned */
	unsigned count, first;	/* those below @first are of an earlier step */
	uint64_t told_ms;
};

static uint64_t now_ms(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static void tell(const struct pull *p, unsigned i, enum oci_step step)
{
	const struct fetch *f = p->fetch[i];
	const struct oci_progress progress = {
		.digest = f->desc->digest, .step = step, .total = f->desc->size, .index = i, .count = p->count,
		.done = step == OCI_STEP_DONE || step == OCI_STEP_HAVE ? f->desc->size : f->w.size,
	};

	if (p->t->progress)
		p->t->progress(p->t->ctx, &progress);
}

/* ---- one blob ---- */

static int on_body(void *ctx, struct http_call *call, const void *data, size_t len)
{
	struct fetch *f = ctx;
	int r = 0;

	/* A fresh answer: does it begin where we asked it to? */
	if (f->w.size && f->w.size == f->attempt_from && call->range_from) {
		if (call->status == 200)
			r = store_write_restart(&f->w, &f->err);
		else if (call->range_got != f->w.size)
			r = err_set(&f->err, -EPROTO, "the registry sends another range than it was asked for");
		call->range_from = 0;
	}
	if (r == 0)
		r = store_write(&f->w, data, len, &f->err);
	if (r == -EFBIG)
		r = err_set(&f->err, -EBADMSG, "layer %.19s...: the registry sends more than the %llu bytes that the manifest "
			    "says: nothing was kept", f->desc->digest, (unsigned long long)f->desc->size);
	return r;
}

static int begin(struct pull *p, unsigned i, struct err *err)
{
	struct fetch *f = p->fetch[i];
	int r;

	if (f->w.fd < 0) {
		r = store_write_resume(p->lease, f->desc->digest, f->desc->size, &f->w, err);
		if (r < 0)
			f->w.fd = -1;
		if (r == -EEXIST) {
			f->state = FETCH_DONE;
			tell(p, i, OCI_STEP_HAVE);
			return 0;
		}
		if (r == -EWOULDBLOCK) {
			f->not_before_ms = now_ms() + BUSY_MS;
			tell(p, i, OCI_STEP_WAIT);
			return 0;
		}
		if (r < 0)
			return r;
		f->resumed = f->w.size > 0;
	}
	f->attempt_from = f->w.size;
	f->call = (struct http_call){ .method = "GET", .range_from = f->w.size, .on_body = on_body, .ctx = f };
	f->err = (struct err){ 0 };
	f->state = FETCH_MOVING;
	if (f->w.size == f->desc->size) {	/* cut off between the last byte and the end */
		f->call.done = true;
		f->call.status = 200;
		return 0;
	}
	r = registry_prepare(p->registry, &f->call, p->scope, err, "%s/blobs/%s", p->ref->path, f->desc->digest);
	return r < 0 ? r : http_start(registry_http(p->registry), &f->call, err);
}

static void again(struct fetch *f, unsigned pause_ms)
{
	f->state = FETCH_WAITING;
	f->not_before_ms = now_ms() + pause_ms;
}

/* All bytes came.  Wrong ones that an earlier attempt left get a second chance. */
static int complete(struct pull *p, unsigned i, struct err *err)
{
	struct fetch *f = p->fetch[i];
	int r = store_write_commit(&f->w, NULL, err);

	f->w.fd = -1;
	if (r == 0) {
		f->state = FETCH_DONE;
		tell(p, i, OCI_STEP_DONE);
		return 0;
	}
	if (r != -EBADMSG)
		return r;
	if (f->resumed && !f->restarted) {
		f->restarted = true;
		again(f, 0);
		return 0;
	}
	return err_set(err, r, "the registry sends wrong bytes for %.19s...: nothing of it was kept; try again, or report it "
		       "to who runs %.60s", f->desc->digest, p->ref->host);
}

static int failed(struct pull *p, unsigned i, struct err *err)
{
	struct fetch *f = p->fetch[i];
	struct http_call *call = &f->call;
	char what[64];
	int r;

	(void)snprintf(what, sizeof(what), "layer %.19s...", f->desc->digest);
	if (f->err.code) {
		if (f->err.code == -EBADMSG)
			store_write_abort(&f->w);
		return err_set(err, f->err.code, "%s", f->err.msg);
	}
	if (call->result == 0 && call->status == 401 && !f->asked) {
		f->asked = true;
		r = registry_authorize(p->registry, call, p->scope, err);
		again(f, 0);
		return r;
	}
	/* It cannot go on from here, or has gone on from something else. */
	if (call->result == 0 && call->status == 416 && f->w.size) {
		again(f, 0);
		return store_write_restart(&f->w, err);
	}
	if (f->w.size >= f->attempt_from + WORTH_BYTES)
		f->attempts = 0;
	/* A whole answer that is too short was cut off by somebody who knows no better. */
	if ((registry_transient(call) || (call->result == 0 && call->status / 100 == 2)) &&
	    ++f->attempts < REGISTRY_ATTEMPTS) {
		again(f, registry_pause_ms(call, f->attempts - 1));
		tell(p, i, OCI_STEP_WAIT);
		return 0;
	}
	if (call->result == 0 && call->status / 100 == 2)
		return err_set(err, -EBADMSG, "%s: the registry sends %llu bytes of %llu; try again", what,
			       (unsigned long long)f->w.size, (unsigned long long)f->desc->size);
	return registry_error(p->registry, call, what, err);
}

static int finish(struct pull *p, unsigned i, struct err *err)
{
	struct fetch *f = p->fetch[i];
	bool whole = f->call.result == 0 && f->call.status / 100 == 2 && f->w.size == f->desc->size;
	int r = whole ? complete(p, i, err) : failed(p, i, err);

	http_finish(&f->call);
	return r;
}

/* ---- several ---- */

/* How many of this step's blobs are in @state. */
static unsigned count_in(const struct pull *p, enum fetch_state state)
{
	unsigned n = 0;

	for (unsigned i = p->first; i < p->count; i++)
		n += p->fetch[i]->state == state;
	return n;
}

static bool all_done(const struct pull *p)
{
	return count_in(p, FETCH_DONE) == p->count - p->first;
}

static int start_some(struct pull *p, struct err *err)
{
	uint64_t now = now_ms();
	unsigned moving = count_in(p, FETCH_MOVING);
	int r = 0;

	for (unsigned i = p->first; r == 0 && i < p->count && moving < PARALLEL; i++)
		if (p->fetch[i]->state == FETCH_WAITING && p->fetch[i]->not_before_ms <= now) {
			r = begin(p, i, err);
			moving += p->fetch[i]->state == FETCH_MOVING;
		}
	return r;
}

static void tell_moving(struct pull *p)
{
	uint64_t now = now_ms();

	if (now - p->told_ms < PROGRESS_MS)
		return;
	p->told_ms = now;
	for (unsigned i = p->first; i < p->count; i++)
		if (p->fetch[i]->state == FETCH_MOVING)
			tell(p, i, OCI_STEP_MOVE);
}

/* Lets go of all blobs; what has come stays for another time. */
static void forget(struct pull *p)
{
	for (unsigned i = 0; i < p->count; i++) {
		http_finish(&p->fetch[i]->call);
		store_write_pause(&p->fetch[i]->w);
		free(p->fetch[i]);
	}
	p->count = p->first = 0;
}

static int move_all(struct pull *p, struct err *err)
{
	const struct timespec step = { .tv_nsec = 20000000 };
	int r = 0;

	while (r == 0 && !all_done(p)) {
		if (p->t->cancel && *p->t->cancel)
			return err_set(err, -EINTR, "interrupted; what has come is kept for the next pull");
		r = start_some(p, err);
		if (r == 0)
			http_poll(registry_http(p->registry), 50);
		for (unsigned i = p->first; r == 0 && i < p->count; i++)
			if (p->fetch[i]->state == FETCH_MOVING && p->fetch[i]->call.done)
				r = finish(p, i, err);
		/* All wait: http_poll() has nothing to wait for. */
		if (r == 0 && !count_in(p, FETCH_MOVING) && !all_done(p))
			(void)nanosleep(&step, NULL);
		tell_moving(p);
	}
	return r;
}

static int want(struct pull *p, const struct descriptor *desc, struct err *err)
{
	struct fetch *f;

	for (unsigned i = 0; i < p->count; i++)	/* the same layer twice is one object */
		if (strcmp(p->fetch[i]->desc->digest, desc->digest) == 0)
			return 0;
	f = calloc(1, sizeof(*f));
	if (!f)
		return err_set(err, -ENOMEM, "out of memory for a download");
	f->desc = desc;
	f->w.fd = -1;
	p->fetch[p->count++] = f;
	return 0;
}

/* Sets quota aside for what is missing. */
static int reserve(struct pull *p, const struct manifest *m, struct err *err)
{
	uint64_t sum = 0, size;

	for (size_t i = 0; i <= m->nlayers; i++) {
		const struct descriptor *d = i ? &m->layer[i - 1] : &m->config;

		if (store_size(p->store, d->digest, &size, NULL) < 0 && __builtin_add_overflow(sum, d->size, &sum))
			return err_set(err, -EBADMSG, "the image says that it has more bytes than there are");
	}
	return sum ? store_lease_reserve(p->lease, sum, err) : 0;
}

/* ---- manifests ---- */

static int check_config(struct pull *p, const struct manifest *m, const char *platform, struct err *err)
{
	struct config_facts *facts = calloc(1, sizeof(*facts));
	struct oci_config config;
	char *json = NULL;
	size_t len, n;
	int r = facts ? store_read(p->store, m->config.digest, LOCAL_JSON_MAX, &json, &len, err)
		      : err_set(err, -ENOMEM, "out of memory for the image");

	if (r == 0) {
		r = manifest_parse_config(json, len, &config, facts, err);
		free(json);
	}
	if (r == 0) {
		manifest_free_config(&config);
		n = strlen(facts->platform);
		if (n && (strncmp(facts->platform, platform, n) != 0 || (platform[n] && platform[n] != '/')))
			r = err_set(err, -ENOEXEC, "the image is for %s, not for %s: name another image, or take it all the same "
				    "with --platform %s", facts->platform, platform, facts->platform);
		else if (facts->nlayers != m->nlayers)
			r = err_set(err, -EBADMSG, "the image is damaged: %zu layers, but digests of %zu", m->nlayers, facts->nlayers);
	}
	free(facts);
	return r;
}

static int pull_manifest(struct pull *p, const char *json, size_t len, const char *platform, struct err *err)
{
	struct manifest *m = calloc(1, sizeof(*m));
	int r = m ? manifest_parse(json, len, m, err) : err_set(err, -ENOMEM, "out of memory for the image");

	if (r == 0 && m->config.size > LOCAL_JSON_MAX)
		r = err_set(err, -EBADMSG, "the image is damaged: its configuration has more than 4 MiB");
	if (r == 0)
		r = reserve(p, m, err);
	if (r == 0)
		r = want(p, &m->config, err);
	if (r == 0)
		r = move_all(p, err);
	/* Before the layers, which may be large. */
	if (r == 0 && platform)
		r = check_config(p, m, platform, err);
	if (r == 0)
		p->first = p->count;
	for (size_t i = 0; r == 0 && i < m->nlayers; i++)
		r = want(p, &m->layer[i], err);
	if (r == 0)
		r = move_all(p, err);
	forget(p);
	free(m);
	return r;
}

/* A manifest or index from the store or the registry, into the store. */
static int get_document(struct pull *p, const char *digest, char **ret_json, size_t *ret_len,
			struct descriptor *ret_desc, struct err *err)
{
	struct reference ref = *p->ref;
	int r = -ENOENT;

	if (digest)
		memcpy(ref.digest, digest, STORE_DIGEST_SIZE);
	if (ref.digest[0]) {
		r = store_lease_add(p->lease, ref.digest, err);
		if (r == 0)
			r = store_read(p->store, ref.digest, LOCAL_JSON_MAX, ret_json, ret_len, err);
	}
	if (r == -ENOENT) {
		r = registry_get_manifest(p->registry, &ref, ret_json, ret_len, err);
		if (r == 0) {
			r = store_put(p->lease, *ret_json, *ret_len, ret_desc->digest, err);
			if (r < 0)
				free(*ret_json);
		}
	} else if (r == 0) {
		memcpy(ret_desc->digest, ref.digest, STORE_DIGEST_SIZE);
	}
	if (r < 0)
		return r;
	ret_desc->size = *ret_len;
	return 0;
}

static int pull_document(struct pull *p, const char *digest, bool chosen, int depth, struct descriptor *ret_desc,
			 struct err *err);

static int pull_entries(struct pull *p, const struct index *index, int depth, struct err *err)
{
	const char *platform = p->t->platform ? p->t->platform : LOCAL_PLATFORM;
	const struct index_entry *e;
	struct descriptor desc;
	int r = 0;

	if (p->t->all_platforms) {
		for (size_t i = 0; r == 0 && i < index->count; i++)
			r = pull_document(p, index->entry[i].desc.digest, false, depth + 1, &desc, err);
		return r;
	}
	e = manifest_choose(index, "", platform, &r, err);

	return e ? pull_document(p, e->desc.digest, true, depth + 1, &desc, err) : r;
}

/* @chosen: it must be for the platform. */
static int pull_document(struct pull *p, const char *digest, bool chosen, int depth, struct descriptor *ret_desc,
			 struct err *err)
{
	const char *platform = p->t->platform ? p->t->platform : LOCAL_PLATFORM;
	enum manifest_kind kind;
	struct index index;
	char *json;
	size_t len;
	int r;

	if (depth > 3)
		return err_set(err, -EBADMSG, "the image is damaged: indexes within indexes");
	r = get_document(p, digest, &json, &len, ret_desc, err);
	if (r < 0)
		return r;
	r = manifest_kind(json, len, &kind, ret_desc->type, err);
	if (r == 0 && kind == MANIFEST_IS_IMAGE)
		r = pull_manifest(p, json, len, chosen ? platform : NULL, err);
	else if (r == 0) {
		r = manifest_parse_index(json, len, &index, err);
		if (r == 0) {
			r = pull_entries(p, &index, depth, err);
			manifest_free_index(&index);
		}
	}
	free(json);
	return r;
}

int oci_pull(struct store *store, struct store_lease *lease, const struct reference *ref,
	     const struct oci_transfer *transfer, struct store_ref *ret_ref, struct err *err)
{
	const struct registry_options options = { .insecure = transfer->insecure, .cancel = transfer->cancel };
	struct pull *p = calloc(1, sizeof(*p));
	struct descriptor desc = { .size = 0 };
	char name[STORE_NAME_MAX];
	int r;

	if (!p)
		return err_set(err, -ENOMEM, "out of memory for the image");
	p->store = store;
	p->lease = lease;
	p->t = transfer;
	p->ref = ref;
	(void)snprintf(p->scope, sizeof(p->scope), "repository:%s:pull", ref->path);
	reference_name(ref, name);
	r = registry_open(ref->host, &options, NULL, &p->registry, err);
	if (r == 0)
		r = pull_document(p, NULL, true, 0, &desc, err);
	if (r == 0)
		r = local_set(store, name, &desc, err);
	if (r == 0)
		r = store_ref_get(store, LOCAL_KIND, name, ret_ref, err);
	registry_close(p->registry);
	free(p);
	return r;
}

/* ---- for a machine ---- */

/* Leases what @ref leads to and looks whether it is all there. */
static int use(struct store *store, struct store_lease *lease, const struct store_ref *ref,
	       const char *platform, struct err *err)
{
	struct manifest *m = calloc(1, sizeof(*m));
	int r = m ? store_lease_add(lease, ref->digest, err) : err_set(err, -ENOMEM, "out of memory for the image");

	if (r == 0)
		r = local_manifest(store, ref->digest, platform, m, err);
	if (r == 0)
		r = local_complete(store, m, err);
	free(m);
	return r;
}

int oci_obtain(struct store *store, struct store_lease *lease, const char *name, enum oci_policy policy,
	       const struct oci_transfer *transfer, struct store_ref *ret_ref, struct err *err)
{
	const char *platform = transfer->platform ? transfer->platform : LOCAL_PLATFORM;
	struct reference ref;
	int r = -ENOENT;

	if (policy != OCI_PULL_ALWAYS) {
		r = local_find(store, name, ret_ref, err);
		if (r == 0)
			r = use(store, lease, ret_ref, platform, err);
		/* Incomplete is as good as missing; of another platform is not. */
		if (r != -ENOENT || policy == OCI_PULL_NEVER)
			return r;
	}
	r = reference_parse(name, &ref, err);
	if (r == 0)
		r = oci_pull(store, lease, &ref, transfer, ret_ref, err);
	return r < 0 ? r : use(store, lease, ret_ref, platform, err);
}
