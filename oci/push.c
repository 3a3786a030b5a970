/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A blob goes to the registry in the first of these ways that works:
 *
 *   HEAD blobs/<digest>                            it is there
 *   POST blobs/uploads/?mount=<digest>&from=<path> it is in another repository there
 *   POST blobs/uploads/, PUT <location>            all of it
 *
 * Manifests follow what they lead to, because registries check that.
 */
#include "oci/transfer.h"

#include "oci/local.h"
#include "oci/registry.h"
#include "os/err.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PROGRESS_MS 100
#define FROM_MAX 4 /* repositories that a blob is looked for in */

struct push {
	struct store *store;
	const struct oci_transfer *t;
	struct registry *registry;
	const struct reference *ref;
	struct store_ref *refs;	/* all images here: what the registry may have under other names */
	size_t nrefs;
	char scope[REGISTRY_SCOPE_MAX];
	char from[FROM_MAX][REFERENCE_PART_MAX];
	unsigned nfrom, index, count;
};

static void tell(const struct push *p, const struct descriptor *desc, enum oci_step step, uint64_t done)
{
	const struct oci_progress progress = { .digest = desc->digest, .step = step, .done = done, .total = desc->size,
					       .index = p->index, .count = p->count };

	if (p->t->progress)
		p->t->progress(p->t->ctx, &progress);
}

static const char *what_of(const struct descriptor *desc, char buf[64])
{
	(void)snprintf(buf, 64, "layer %.19s...", desc->digest);
	return buf;
}

/* 1: the registry has it. */
static int is_there(struct push *p, const struct descriptor *desc, struct http_call *call, struct err *err)
{
	char what[64];
	int r;

	*call = (struct http_call){ .method = "HEAD" };
	r = registry_prepare(p->registry, call, p->scope, err, "%s/blobs/%s", p->ref->path, desc->digest);
	if (r == 0)
		r = registry_do(p->registry, call, p->scope, err);
	if (r == 0 && call->result == 0 && call->status == 200)
		r = 1;
	else if (r == 0 && (call->result < 0 || call->status != 404))
		r = registry_error(p->registry, call, what_of(desc, what), err);
	http_finish(call);
	return r;
}

/* Begins an upload; @from: or lets the registry take the blob from there.  1: it did. */
static int begin_upload(struct push *p, const struct descriptor *desc, const char *from, struct http_call *call,
			char ret_location[HTTP_URL_MAX], struct err *err)
{
	char what[64];
	int r;

	*call = (struct http_call){ .method = "POST", .body = "", .body_len = 0 };
	if (from)
		r = registry_prepare(p->registry, call, p->scope, err, "%s/blobs/uploads/?mount=%s&from=%s", p->ref->path,
				     desc->digest, from);
	else
		r = registry_prepare(p->registry, call, p->scope, err, "%s/blobs/uploads/", p->ref->path);
	if (r == 0)
		r = registry_do(p->registry, call, p->scope, err);
	if (r == 0 && call->result == 0 && call->status == 201 && from)
		r = 1;
	else if (r == 0 && call->result == 0 && call->status == 202 && call->location[0])
		memcpy(ret_location, call->location, HTTP_URL_MAX);
	else if (r == 0)
		r = registry_error(p->registry, call, what_of(desc, what), err);
	http_finish(call);
	return r;
}

/* Sends the bytes.  1: it failed in a way that another upload may not. */
static int send_bytes(struct push *p, const struct descriptor *desc, const char *location, struct http_call *call,
		      unsigned *ret_pause_ms, unsigned attempt, struct err *err)
{
	char what[64];
	uint64_t told = 0;
	int r, fd = store_open_object(p->store, desc->digest, err);

	if (fd < 0)
		return fd == -ENOENT ? err_set(err, fd, "the image is incomplete: pull it again before pushing it") : fd;
	*call = (struct http_call){ .method = "PUT", .has_file = true, .body_fd = fd, .body_len = desc->size,
				    .content_type = "application/octet-stream" };
	r = snprintf(call->url, sizeof(call->url), "%s%sdigest=%s", location, strchr(location, '?') ? "&" : "?",
		     desc->digest);
	if (r >= (int)sizeof(call->url)) {
		r = err_set(err, -EPROTO, "the registry gives too long a place to upload to");
	} else {
		registry_prepare_url(p->registry, call, p->scope);
		r = http_start(registry_http(p->registry), call, err);
	}
	while (r == 0 && !call->done) {
		http_poll(registry_http(p->registry), PROGRESS_MS);
		if (p->t->cancel && *p->t->cancel)
			r = err_set(err, -EINTR, "interrupted");
		else if (call->sent != told)
			tell(p, desc, OCI_STEP_MOVE, told = call->sent);
	}
	if (r == 0 && (call->result < 0 || call->status != 201)) {
		*ret_pause_ms = registry_pause_ms(call, attempt);
		r = registry_transient(call) && attempt + 1 < REGISTRY_ATTEMPTS
			    ? 1 : registry_error(p->registry, call, what_of(desc, what), err);
	}
	http_finish(call);
	close(fd);
	return r;
}

static int upload(struct push *p, const struct descriptor *desc, char location[HTTP_URL_MAX], struct http_call *call,
		  struct err *err)
{
	unsigned pause = 0;

	for (unsigned attempt = 0;; attempt++) {
		int r = location[0] ? 0 : begin_upload(p, desc, NULL, call, location, err);

		if (r == 0)
			r = send_bytes(p, desc, location, call, &pause, attempt, err);
		if (r != 1)
			return r;
		tell(p, desc, OCI_STEP_WAIT, 0);
		r = registry_wait(p->registry, pause, err);
		if (r < 0)
			return r;
		location[0] = '\0';
	}
}

static int push_blob(struct push *p, const struct descriptor *desc, struct err *err)
{
	struct http_call *call = calloc(1, sizeof(*call));
	char location[HTTP_URL_MAX] = "";
	int r = call ? is_there(p, desc, call, err) : err_set(err, -ENOMEM, "out of memory for the registry");

	for (unsigned i = 0; r == 0 && i < p->nfrom && !location[0]; i++)
		r = begin_upload(p, desc, p->from[i], call, location, err);
	if (r == 0) {
		r = upload(p, desc, location, call, err);
		if (r == 0)
			tell(p, desc, OCI_STEP_DONE, desc->size);
	} else if (r == 1) {
		tell(p, desc, OCI_STEP_HAVE, desc->size);
		r = 0;
	}
	p->index++;
	free(call);
	return r;
}

static int put_manifest(struct push *p, const struct descriptor *desc, const char *version, struct err *err)
{
	struct http_call *call = calloc(1, sizeof(*call));
	char *json = NULL;
	size_t len;
	int r = call ? store_read(p->store, desc->digest, LOCAL_JSON_MAX, &json, &len, err)
		     : err_set(err, -ENOMEM, "out of memory for the registry");

	if (r == 0) {
		*call = (struct http_call){ .method = "PUT", .body = json, .body_len = len, .content_type = desc->type };
		r = registry_prepare(p->registry, call, p->scope, err, "%s/manifests/%s", p->ref->path, version);
	}
	if (r == 0)
		r = registry_do(p->registry, call, p->scope, err);
	if (r == 0 && (call->result < 0 || call->status / 100 != 2))
		r = registry_error(p->registry, call, "manifest", err);
	if (call)
		http_finish(call);
	free(call);
	free(json);
	return r;
}

/* ---- what to send ---- */

/* Repositories of the same registry that may have the layers of @m, from the images here. */
static void find_sources(struct push *p, const struct manifest *m)
{
	struct manifest *other = malloc(sizeof(*other));
	struct reference ref;

	p->nfrom = 0;
	for (size_t i = 0; other && i < p->nrefs && p->nfrom < FROM_MAX; i++) {
		bool shares = false, known = false;

		if (reference_parse(p->refs[i].name, &ref, NULL) < 0 || strcmp(ref.host, p->ref->host) != 0 ||
		    strcmp(ref.path, p->ref->path) == 0 ||
		    local_any_manifest(p->store, p->refs[i].digest, other, NULL, NULL) < 0)
			continue;
		for (size_t a = 0; a < m->nlayers && !shares; a++)
			for (size_t b = 0; b < other->nlayers && !shares; b++)
				shares = strcmp(m->layer[a].digest, other->layer[b].digest) == 0;
		for (unsigned k = 0; k < p->nfrom; k++)
			known = known || strcmp(p->from[k], ref.path) == 0;
		if (shares && !known)
			memcpy(p->from[p->nfrom++], ref.path, sizeof(ref.path));
	}
	free(other);
}

static void make_scope(struct push *p)
{
	_Static_assert((FROM_MAX + 1) * (REFERENCE_PART_MAX + 32) <= REGISTRY_SCOPE_MAX, "all rights fit");
	int n = snprintf(p->scope, sizeof(p->scope), "repository:%s:pull,push", p->ref->path);

	for (unsigned i = 0; i < p->nfrom; i++)
		n += snprintf(p->scope + n, sizeof(p->scope) - (size_t)n, " repository:%s:pull", p->from[i]);
}

static int push_image(struct push *p, const struct descriptor *desc, const char *version, struct err *err)
{
	struct manifest *m = calloc(1, sizeof(*m));
	int r = m ? local_manifest(p->store, desc->digest, LOCAL_PLATFORM, m, err)
		  : err_set(err, -ENOMEM, "out of memory for the image");

	if (r == 0)
		r = local_complete(p->store, m, err);
	if (r == 0) {
		find_sources(p, m);
		make_scope(p);
		p->count = (unsigned)m->nlayers + 1;
		p->index = 0;
	}
	for (size_t i = 0; r == 0 && i < m->nlayers; i++)
		r = push_blob(p, &m->layer[i], err);
	if (r == 0)
		r = push_blob(p, &m->config, err);
	if (r == 0)
		r = put_manifest(p, desc, version, err);
	free(m);
	return r;
}

/* 1: some of its manifests are not here. */
static int push_index(struct push *p, const struct index *index, const struct descriptor *desc, const char *version,
		      struct err *err)
{
	uint64_t size;
	int r = 0;

	for (size_t i = 0; i < index->count; i++)
		if (index->entry[i].is_index || store_size(p->store, index->entry[i].desc.digest, &size, NULL) < 0)
			return 1;
	for (size_t i = 0; r == 0 && i < index->count; i++) {
		struct descriptor one = index->entry[i].desc;

		if (!one.type[0])
			memcpy(one.type, MEDIA_OCI_MANIFEST, sizeof(MEDIA_OCI_MANIFEST));
		r = push_image(p, &one, one.digest, err);
	}
	return r < 0 ? r : put_manifest(p, desc, version, err);
}

static int push_any(struct push *p, struct descriptor *desc, const char *version, struct err *err)
{
	enum manifest_kind kind;
	struct manifest *m;
	struct index index;
	char *json;
	size_t len;
	int r = store_read(p->store, desc->digest, LOCAL_JSON_MAX, &json, &len, err);

	if (r < 0)
		return r == -ENOENT ? err_set(err, r, "the image is incomplete: pull it again before pushing it") : r;
	r = manifest_kind(json, len, &kind, NULL, err);
	if (r == 0 && kind == MANIFEST_IS_INDEX)
		r = manifest_parse_index(json, len, &index, err);
	free(json);
	if (r < 0)
		return r;
	if (kind == MANIFEST_IS_IMAGE)
		return push_image(p, desc, version, err);
	r = push_index(p, &index, desc, version, err);
	manifest_free_index(&index);
	if (r != 1)
		return r;
	m = calloc(1, sizeof(*m));
	r = m ? local_any_manifest(p->store, desc->digest, m, desc, err) : err_set(err, -ENOMEM, "out of memory for the image");
	free(m);
	return r < 0 ? r : push_image(p, desc, version, err);
}

int oci_push(struct store *store, const struct store_ref *image, const struct reference *ref,
	     const struct oci_transfer *transfer, char ret_digest[STORE_DIGEST_SIZE], struct err *err)
{
	const struct registry_options options = { .insecure = transfer->insecure, .cancel = transfer->cancel };
	struct push *p = calloc(1, sizeof(*p));
	struct descriptor desc = { .size = image->size };
	int r;

	if (!p)
		return err_set(err, -ENOMEM, "out of memory for the image");
	p->store = store;
	p->t = transfer;
	p->ref = ref;
	memcpy(desc.digest, image->digest, sizeof(desc.digest));
	memcpy(desc.type, image->type, sizeof(desc.type));
	r = store_ref_list(store, LOCAL_KIND, &p->refs, &p->nrefs, err);
	make_scope(p);
	if (r == 0)
		r = registry_open(ref->host, &options, NULL, &p->registry, err);
	if (r == 0)
		r = push_any(p, &desc, ref->digest[0] ? ref->digest : ref->tag, err);
	if (r == 0)
		memcpy(ret_digest, desc.digest, STORE_DIGEST_SIZE);
	registry_close(p->registry);
	free(p->refs);
	free(p);
	return r;
}
