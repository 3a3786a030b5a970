/* SPDX-License-Identifier: Apache-2.0 */
#include "oci/manifest.h"

#include "os/err.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LIST_MAX 10000 /* elements of a list in a configuration */

static int damaged(struct err *err, const char *what)
{
	return err_set(err, -EBADMSG, "the image is damaged: %s", what);
}

static int no_memory(struct err *err)
{
	return err_set(err, -ENOMEM, "out of memory for the image's description");
}

static cJSON *parse(const char *json, size_t len, const char *what, struct err *err)
{
	cJSON *doc = cJSON_ParseWithLength(json, len);

	if (!doc)
		err_set(err, -EBADMSG, "the image is damaged: its %s is not JSON", what);
	return doc;
}

static const char *get_string(const cJSON *object, const char *key)
{
	return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, key));
}

static bool copy(char *dst, size_t size, const char *src)
{
	size_t n = src ? strlen(src) : size;

	if (n >= size)
		return false;
	memcpy(dst, src, n + 1);
	return true;
}

static int copy_digest(const char *text, char ret[STORE_DIGEST_SIZE], struct err *err)
{
	if (!text)
		return damaged(err, "a digest is missing");
	if (strncmp(text, "sha256:", 7) != 0)
		return err_set(err, -ENOTSUP, "roux knows sha256 digests only, not %.40s", text);
	if (!store_digest_ok(text))
		return damaged(err, "malformed digest");
	memcpy(ret, text, STORE_DIGEST_SIZE);
	return 0;
}

void manifest_blob_name(const char *digest, char ret_name[MANIFEST_NAME_MAX])
{
	(void)snprintf(ret_name, MANIFEST_NAME_MAX, "blobs/sha256/%s", digest + strlen("sha256:"));
}

static int parse_descriptor(const cJSON *object, struct descriptor *ret, struct err *err)
{
	const char *type = get_string(object, "mediaType");
	const cJSON *size = cJSON_GetObjectItemCaseSensitive(object, "size");

	/* 2^53: what JSON numbers hold exactly. */
	if (!cJSON_IsNumber(size) || !(size->valuedouble >= 0) || size->valuedouble > 9007199254740992.0)
		return damaged(err, "a size is missing or wrong");
	ret->size = (uint64_t)size->valuedouble;
	ret->type[0] = '\0';
	if (type && !copy(ret->type, sizeof(ret->type), type))
		return damaged(err, "a media type is too long");
	return copy_digest(get_string(object, "digest"), ret->digest, err);
}

/* "os/architecture", or "" when @object does not say. */
static void copy_platform(const cJSON *object, char ret[64])
{
	const char *os = get_string(object, "os"), *arch = get_string(object, "architecture");
	int n = os && arch ? snprintf(ret, 64, "%s/%s", os, arch) : 0;

	if (n <= 0 || n >= 64)
		ret[0] = '\0';
}

/* ---- image index ---- */

static int parse_index_entry(const cJSON *object, struct index_entry *ret, struct err *err)
{
	const cJSON *notes = cJSON_GetObjectItemCaseSensitive(object, "annotations");
	const char *type = get_string(object, "mediaType"), *variant, *full;
	const char *name = get_string(notes, "org.opencontainers.image.ref.name");

	*ret = (struct index_entry){ .is_index = false };
	full = get_string(notes, "io.containerd.image.name");
	if (!name)
		name = full;
	if ((name && !copy(ret->name, sizeof(ret->name), name)) || (full && !copy(ret->full_name, sizeof(ret->full_name), full)))
		return damaged(err, "a reference name is too long");
	copy_platform(cJSON_GetObjectItemCaseSensitive(object, "platform"), ret->platform);
	variant = get_string(cJSON_GetObjectItemCaseSensitive(object, "platform"), "variant");
	if (variant && !copy(ret->variant, sizeof(ret->variant), variant))
		return damaged(err, "a platform's variant is too long");
	ret->is_index = type && (strcmp(type, MEDIA_OCI_INDEX) == 0 || strcmp(type, MEDIA_DOCKER_LIST) == 0);
	return parse_descriptor(object, &ret->desc, err);
}

int manifest_parse_index(const char *json, size_t len, struct index *ret_index, struct err *err)
{
	cJSON *doc = parse(json, len, "index", err);
	const cJSON *list = cJSON_GetObjectItemCaseSensitive(doc, "manifests"), *item;
	struct index index = { .count = 0 };
	int n, r = 0;

	if (!doc)
		return -EBADMSG;
	n = cJSON_IsArray(list) ? cJSON_GetArraySize(list) : 0;
	if (n < 1 || n > MANIFEST_ENTRIES_MAX) {
		r = damaged(err, "its index has no manifests, or too many");
		goto finish;
	}
	index.entry = calloc((size_t)n, sizeof(*index.entry));
	if (!index.entry) {
		r = no_memory(err);
		goto finish;
	}
	cJSON_ArrayForEach(item, list) {
		r = parse_index_entry(item, &index.entry[index.count++], err);
		if (r < 0)
			break;
	}
finish:
	cJSON_Delete(doc);
	if (r < 0) {
		manifest_free_index(&index);
		return r;
	}
	*ret_index = index;
	return 0;
}

void manifest_free_index(struct index *index)
{
	free(index->entry);
	*index = (struct index){ .count = 0 };
}

int manifest_kind(const char *json, size_t len, enum manifest_kind *ret_kind, char ret_type[MEDIA_TYPE_MAX],
		  struct err *err)
{
	cJSON *doc = parse(json, len, "manifest", err);
	bool index = cJSON_IsArray(cJSON_GetObjectItemCaseSensitive(doc, "manifests"));
	bool image = cJSON_IsObject(cJSON_GetObjectItemCaseSensitive(doc, "config"));
	const char *type = get_string(doc, "mediaType");
	int r = 0;

	if (!doc)
		return -EBADMSG;
	if (!index && !image)
		r = damaged(err, "its manifest is of a kind that roux does not know");
	else if (index && image)	/* a document must not mean two things */
		r = damaged(err, "its manifest is an index as well");
	else if (type && (strlen(type) >= MEDIA_TYPE_MAX || strpbrk(type, "\r\n")))
		r = damaged(err, "a media type is wrong");
	else if (ret_type)
		(void)copy(ret_type, MEDIA_TYPE_MAX, type && *type ? type : index ? MEDIA_OCI_INDEX : MEDIA_OCI_MANIFEST);
	cJSON_Delete(doc);
	if (r == 0)
		*ret_kind = index ? MANIFEST_IS_INDEX : MANIFEST_IS_IMAGE;
	return r;
}

/* Whether the user's @name means the image called @reference: that in full, or only its tag. */
static bool name_matches(const char *reference, const char *name)
{
	const char *colon = strrchr(reference, ':');

	return strcmp(reference, name) == 0 || (colon && strcmp(colon + 1, name) == 0);
}

/* @platform may leave the variant open; so may the entry. */
static bool platform_matches(const struct index_entry *e, const char *platform)
{
	size_t n = strlen(e->platform);

	if (!n)
		return true;
	if (strncmp(e->platform, platform, n) != 0)
		return false;
	return platform[n] == '\0' || (platform[n] == '/' && (!e->variant[0] || strcmp(e->variant, platform + n + 1) == 0));
}

const struct index_entry *manifest_choose(const struct index *index, const char *name, const char *platform,
					  int *ret_code, struct err *err)
{
	const struct index_entry *found = NULL, *other = NULL;
	bool any = false;

	for (size_t i = 0; i < index->count; i++) {
		const struct index_entry *e = &index->entry[i];

		if (name[0] && !name_matches(e->name, name))
			continue;
		any = true;
		if (!platform_matches(e, platform)) {
			if (strcmp(e->platform, "unknown/unknown") != 0)	/* attestations */
				other = e;
			continue;
		}
		/* Of several variants the first is the plain one. */
		if (found && found->platform[0] && e->platform[0] && strcmp(found->variant, e->variant) != 0)
			continue;
		if (found && strcmp(found->desc.digest, e->desc.digest) != 0) {
			*ret_code = err_set(err, -EINVAL, "there are several images (%.60s, %.60s, ...): add "
					    ":NAME to the path", found->name[0] ? found->name : "unnamed",
					    e->name[0] ? e->name : "unnamed");
			return NULL;
		}
		found = e;
	}
	if (found)
		return found;
	if (!any)
		*ret_code = err_set(err, -ENOENT, "there is no image '%.100s' in it", name);
	else
		*ret_code = err_set(err, -ENOEXEC, "the image is for %s, not for %s: choose another, or another one's "
				    "--platform", other ? other->platform : "another platform", platform);
	return NULL;
}

/* ---- image manifest ---- */

static int parse_manifest(const cJSON *doc, struct manifest *m, struct err *err)
{
	const cJSON *config = cJSON_GetObjectItemCaseSensitive(doc, "config"), *item;
	const cJSON *layers = cJSON_GetObjectItemCaseSensitive(doc, "layers");
	const char *type = get_string(doc, "mediaType");
	int r;

	if (!cJSON_IsObject(config) || !cJSON_IsArray(layers))
		return damaged(err, "its manifest has no config or no layers");
	m->type[0] = '\0';
	if (type && !copy(m->type, sizeof(m->type), type))
		return damaged(err, "a media type is too long");
	r = parse_descriptor(config, &m->config, err);
	m->nlayers = 0;
	cJSON_ArrayForEach(item, layers) {
		if (r < 0)
			return r;
		if (m->nlayers == MANIFEST_LAYERS_MAX)
			return damaged(err, "it has too many layers");
		r = parse_descriptor(item, &m->layer[m->nlayers++], err);
	}
	return r;
}

int manifest_parse(const char *json, size_t len, struct manifest *ret_manifest, struct err *err)
{
	cJSON *doc = parse(json, len, "manifest", err);
	int r = doc ? parse_manifest(doc, ret_manifest, err) : -EBADMSG;

	cJSON_Delete(doc);
	return r;
}

/* ---- docker-archive ---- */

static bool has_tag(const cJSON *image, const char *name)
{
	const cJSON *tag;

	cJSON_ArrayForEach(tag, cJSON_GetObjectItemCaseSensitive(image, "RepoTags"))
		if (cJSON_IsString(tag) && name_matches(tag->valuestring, name))
			return true;
	return false;
}

static int parse_archive(const cJSON *doc, const char *name, struct archive_manifest *m,
			 struct err *err)
{
	const cJSON *image, *found = NULL, *item;

	if (!cJSON_IsArray(doc))
		return damaged(err, "its manifest.json is not a list");
	cJSON_ArrayForEach(image, doc) {
		if (name && !has_tag(image, name))
			continue;
		if (found)
			return err_set(err, -EINVAL, "the archive has several images: add :TAG to its path");
		found = image;
	}
	if (!found)
		return err_set(err, -ENOENT, "the archive has no image '%.100s'", name ? name : "");
	if (!copy(m->config, sizeof(m->config), get_string(found, "Config")))
		return damaged(err, "its manifest.json names no configuration");
	m->nlayers = 0;
	cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(found, "Layers"))
		if (m->nlayers == MANIFEST_LAYERS_MAX || !cJSON_IsString(item) ||
		    !copy(m->layer[m->nlayers++], MANIFEST_NAME_MAX, item->valuestring))
			return damaged(err, "its manifest.json has a wrong list of layers");
	return 0;
}

int manifest_parse_archive(const char *json, size_t len, const char *name,
			   struct archive_manifest *ret_manifest, struct err *err)
{
	cJSON *doc = parse(json, len, "manifest.json", err);
	int r = doc ? parse_archive(doc, name, ret_manifest, err) : -EBADMSG;

	cJSON_Delete(doc);
	return r;
}

/* ---- configuration ---- */

static void free_list(char **list)
{
	for (size_t i = 0; list && list[i]; i++)
		free(list[i]);
	free(list);
}

void manifest_free_config(struct oci_config *config)
{
	free_list(config->entrypoint);
	free_list(config->cmd);
	free_list(config->env);
	free_list(config->exposed_ports);
	free_list(config->volumes);
	free_list(config->labels);
	free(config->user);
	free(config->working_dir);
	free(config->stop_signal);
	free_list(config->health_test);
	*config = (struct oci_config){ .user = NULL };
}

static bool take_string(const cJSON *object, const char *key, char **ret)
{
	const char *value = get_string(object, key);

	*ret = strdup(value ? value : "");
	return *ret != NULL;
}

/* How one element of a list or member of an object becomes a string. */
static char *element(const cJSON *item)
{
	return cJSON_IsString(item) ? strdup(item->valuestring) : NULL;
}

static char *member_name(const cJSON *item)
{
	return strdup(item->string);
}

static char *member_pair(const cJSON *item)
{
	char *pair = NULL;

	if (!cJSON_IsString(item) || asprintf(&pair, "%s=%s", item->string, item->valuestring) < 0)
		return NULL;
	return pair;
}

/*
 * Absent and null are empty lists.  Returns 0, or -1 for a value of the wrong
 * kind (or no memory: the caller cannot do better than give up either way).
 */
static int take_list(const cJSON *object, const char *key, char *(*to_string)(const cJSON *item),
		     char ***ret)
{
	const cJSON *list = cJSON_GetObjectItemCaseSensitive(object, key), *item;
	bool absent = !list || cJSON_IsNull(list);
	bool right = to_string == element ? cJSON_IsArray(list) : cJSON_IsObject(list);
	int n = absent ? 0 : cJSON_GetArraySize(list), i = 0;

	if ((!absent && !right) || n > LIST_MAX)
		return -1;
	*ret = calloc((size_t)n + 1, sizeof(**ret));
	if (!*ret)
		return -1;
	if (absent)
		return 0;
	cJSON_ArrayForEach(item, list) {
		(*ret)[i] = to_string(item);
		if (!(*ret)[i++])
			return -1;
	}
	return 0;
}

/* A span in nanoseconds, as docker's extension of the configuration has it; nonsense is 0. */
static int64_t get_span(const cJSON *object, const char *key)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);

	return cJSON_IsNumber(item) && item->valuedouble > 0 && item->valuedouble < 0x1p62 ? (int64_t)item->valuedouble : 0;
}

static int fill_health(const cJSON *health, struct oci_config *c)
{
	const cJSON *retries = cJSON_GetObjectItemCaseSensitive(health, "Retries");

	c->health_interval_ns = get_span(health, "Interval");
	c->health_timeout_ns = get_span(health, "Timeout");
	c->health_start_ns = get_span(health, "StartPeriod");
	if (cJSON_IsNumber(retries) && retries->valuedouble >= 1 && retries->valuedouble < 1e6)
		c->health_retries = (uint32_t)retries->valuedouble;
	return take_list(health, "Test", element, &c->health_test);
}

static int fill_config(const cJSON *object, struct oci_config *c, struct err *err)
{
	*c = (struct oci_config){ .user = NULL };
	if (take_list(object, "Entrypoint", element, &c->entrypoint) < 0 ||
	    take_list(object, "Cmd", element, &c->cmd) < 0 ||
	    take_list(object, "Env", element, &c->env) < 0 ||
	    take_list(object, "ExposedPorts", member_name, &c->exposed_ports) < 0 ||
	    take_list(object, "Volumes", member_name, &c->volumes) < 0 ||
	    take_list(object, "Labels", member_pair, &c->labels) < 0 ||
	    fill_health(cJSON_GetObjectItemCaseSensitive(object, "Healthcheck"), c) < 0)
		return damaged(err, "its configuration has a list of the wrong kind");
	if (!take_string(object, "User", &c->user) ||
	    !take_string(object, "WorkingDir", &c->working_dir) ||
	    !take_string(object, "StopSignal", &c->stop_signal))
		return no_memory(err);
	return 0;
}

static int fill_facts(const cJSON *doc, struct config_facts *facts, struct err *err)
{
	const cJSON *rootfs = cJSON_GetObjectItemCaseSensitive(doc, "rootfs"), *item;
	int r = 0;

	copy_platform(doc, facts->platform);
	facts->nlayers = 0;
	cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(rootfs, "diff_ids")) {
		if (facts->nlayers == MANIFEST_LAYERS_MAX)
			return damaged(err, "its configuration has too many layers");
		r = copy_digest(cJSON_GetStringValue(item), facts->diff_id[facts->nlayers++], err);
		if (r < 0)
			return r;
	}
	return 0;
}

int manifest_parse_config(const char *json, size_t len, struct oci_config *ret_config,
			  struct config_facts *ret_facts, struct err *err)
{
	cJSON *doc = parse(json, len, "configuration", err);
	struct oci_config config;
	int r;

	if (!doc)
		return -EBADMSG;
	r = fill_config(cJSON_GetObjectItemCaseSensitive(doc, "config"), &config, err);
	if (r == 0)
		r = fill_facts(doc, ret_facts, err);
	cJSON_Delete(doc);
	if (r < 0) {
		manifest_free_config(&config);
		return r;
	}
	*ret_config = config;
	return 0;
}

int manifest_empty_config(struct oci_config *ret_config, struct err *err)
{
	int r = fill_config(NULL, ret_config, err);

	if (r < 0) {
		manifest_free_config(ret_config);
		return no_memory(err);
	}
	return 0;
}
