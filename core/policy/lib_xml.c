/*
 * xml, by libxml2: documents and their nodes. A node keeps its document: that is freed when nothing
 * in Lua refers to it or one of its nodes any more. Nodes that were taken out stay the document's.
 */
#include <libxml/parser.h>
#include <libxml/tree.h>
#include <libxml/xpath.h>
#include <string.h>

#include "core/policy/parts.h"

#define DOC_CLASS "xmldoc"
#define NODE_CLASS "xmlnode"
/* Of libxml2's own: entities are not expanded, nothing is fetched, nothing is printed. */
#define PARSE_OPTIONS (XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING)

SINGLE
struct xml_doc {
	xmlDocPtr doc;
	/* Elements that were taken out of the tree, and may be known in Lua; NULL: none. */
	xmlNodePtr attic;
};

/* Its environment has the document. */
SINGLE
struct xml_node {
	xmlNodePtr node;
};

/* As luaL_argerror() says it, without the place: that is in the traceback. */
static const char *check_text(lua_State *state, int index, const char *function)
{
	if (lua_type(state, index) != LUA_TSTRING && lua_type(state, index) != LUA_TNUMBER) {
		lua_pushfstring(state, "bad argument #%d to '%s' (string expected, got %s)",
				index - 1, function,
				lua_isnone(state, index) ? "no value"
							 : luaL_typename(state, index));
		lua_error(state);
	}
	return lua_tostring(state, index);
}

static struct xml_doc *check_doc(lua_State *state)
{
	return luaL_checkudata(state, 1, DOC_CLASS);
}

static xmlNodePtr check_node(lua_State *state)
{
	struct xml_node *n = luaL_checkudata(state, 1, NODE_CLASS);

	return n->node;
}

/* The document at `index` is what the node lives in. */
static void push_node(lua_State *state, xmlNodePtr node, int doc)
{
	struct xml_node *n;

	if (node == NULL) {
		lua_pushnil(state);
		return;
	}
	lua_pushvalue(state, doc);
	n = lua_newuserdata(state, sizeof(*n));
	n->node = node;
	luaL_getmetatable(state, NODE_CLASS);
	lua_setmetatable(state, -2);
	lua_newtable(state);
	lua_pushvalue(state, -3);
	lua_setfield(state, -2, "doc");
	lua_setfenv(state, -2);
	lua_remove(state, -2);
}

/* Pushes the document of the node at index 1; its index. */
static int push_doc_of_node(lua_State *state)
{
	lua_getfenv(state, 1);
	lua_getfield(state, -1, "doc");
	return lua_gettop(state);
}

static int parsexml(lua_State *state)
{
	size_t len;
	const char *text = luaL_checklstring(state, 1, &len);
	struct xml_doc *d = lua_newuserdata(state, sizeof(*d));

	*d = (struct xml_doc){NULL, NULL};
	luaL_getmetatable(state, DOC_CLASS);
	lua_setmetatable(state, -2);
	d->doc = xmlReadMemory(text, (int)len, NULL, NULL, PARSE_OPTIONS);
	if (d->doc == NULL) {
		const xmlError *e = xmlGetLastError();

		lua_pushnil(state);
		lua_pushfstring(state, "line %d: %s", e != NULL ? e->line : 0,
				e != NULL && e->message != NULL ? e->message : "not XML");
		return 2;
	}
	return 1;
}

static int doc_gc(lua_State *state)
{
	struct xml_doc *d = check_doc(state);

	if (d->attic != NULL) {
		xmlFreeNode(d->attic);
	}
	xmlFreeDoc(d->doc);
	*d = (struct xml_doc){NULL, NULL};
	return 0;
}

static int doc_root(lua_State *state)
{
	push_node(state, xmlDocGetRootElement(check_doc(state)->doc), 1);
	return 1;
}

/* Memory of libxml2's, where an error frees it. */
static void push_buffer(lua_State *state, xmlBufferPtr buffer)
{
	lua_pushlstring(state, (const char *)xmlBufferContent(buffer),
			(size_t)xmlBufferLength(buffer));
}

static int tell(lua_State *state, xmlDocPtr doc, xmlNodePtr node)
{
	xmlBufferPtr buffer = xmlBufferCreate();

	if (buffer == NULL) {
		return luaL_error(state, "xml: out of memory");
	}
	xmlNodeDump(buffer, doc, node, 0, 0);
	push_buffer(state, buffer);
	xmlBufferFree(buffer);
	return 1;
}

/* Without the declaration: the element that is the document. */
static int doc_tostring(lua_State *state)
{
	struct xml_doc *d = check_doc(state);

	return tell(state, d->doc, xmlDocGetRootElement(d->doc));
}

static int node_tostring(lua_State *state)
{
	xmlNodePtr node = check_node(state);

	return tell(state, node->doc, node);
}

static int node_addchild(lua_State *state)
{
	xmlNodePtr node = check_node(state);
	const char *name = check_text(state, 2, "addchild");
	xmlNodePtr child;

	if (xmlValidateNCName((const xmlChar *)name, 0) != 0) {
		return luaL_error(state, "\"%s\" is not a name of XML", name);
	}
	child = xmlNewChild(node, NULL, (const xmlChar *)name, NULL);
	push_node(state, child, push_doc_of_node(state));
	return 1;
}

/* attr(name): its value, or nil. attr(name, value): sets it; nil: takes it off. */
static int node_attr(lua_State *state)
{
	xmlNodePtr node = check_node(state);
	const char *name = check_text(state, 2, "attr");
	xmlChar *value;

	if (lua_gettop(state) >= 3) {
		if (lua_isnil(state, 3)) {
			xmlUnsetProp(node, (const xmlChar *)name);
		} else {
			xmlSetProp(node, (const xmlChar *)name,
				   (const xmlChar *)check_text(state, 3, "attr"));
		}
		return 0;
	}
	value = xmlGetProp(node, (const xmlChar *)name);
	if (value == NULL) {
		lua_pushnil(state);
	} else {
		lua_pushstring(state, (const char *)value);
		xmlFree(value);
	}
	return 1;
}

static void take_out(lua_State *state, xmlNodePtr node)
{
	struct xml_doc *d = lua_touserdata(state, push_doc_of_node(state));
	xmlNodePtr next;

	for (xmlNodePtr c = node->children; c != NULL; c = next) {
		next = c->next;
		if (c->type != XML_ELEMENT_NODE) {
			continue;
		}
		if (d->attic == NULL) {
			d->attic = xmlNewDocNode(d->doc, NULL, (const xmlChar *)"attic", NULL);
		}
		xmlUnlinkNode(c);
		xmlAddChild(d->attic, c);
	}
}

/* contents(): the text in it. contents(text): that, instead of all that is in it. */
static int node_contents(lua_State *state)
{
	xmlNodePtr node = check_node(state);
	xmlChar *text;

	if (lua_gettop(state) >= 2) {
		const char *fresh = check_text(state, 2, "contents");
		xmlChar *escaped = xmlEncodeSpecialChars(node->doc, (const xmlChar *)fresh);

		take_out(state, node);
		xmlNodeSetContent(node, escaped);
		xmlFree(escaped);
		return 0;
	}
	text = xmlNodeGetContent(node);
	lua_pushstring(state, text != NULL ? (const char *)text : "");
	xmlFree(text);
	return 1;
}

static int node_name(lua_State *state)
{
	lua_pushstring(state, (const char *)check_node(state)->name);
	return 1;
}

/* Elements only. */
static int node_children(lua_State *state)
{
	xmlNodePtr node = check_node(state);
	int doc = push_doc_of_node(state);
	int count = 0;

	lua_newtable(state);
	for (xmlNodePtr c = node->children; c != NULL; c = c->next) {
		if (c->type == XML_ELEMENT_NODE) {
			push_node(state, c, doc);
			lua_rawseti(state, -2, ++count);
		}
	}
	return 1;
}

static int node_parent(lua_State *state)
{
	xmlNodePtr node = check_node(state);
	xmlNodePtr parent = node->parent;

	push_node(state, parent != NULL && parent->type == XML_ELEMENT_NODE ? parent : NULL,
		  push_doc_of_node(state));
	return 1;
}

void policy_open_xml(lua_State *state)
{
	static const luaL_Reg xml[] = {{"parsexml", parsexml}, {NULL, NULL}};
	static const luaL_Reg doc[] = {
		{"root", doc_root}, {"tostring", doc_tostring}, {NULL, NULL}};
	static const luaL_Reg node[] = {
		{"addchild", node_addchild}, {"attr", node_attr},
		{"contents", node_contents}, {"name", node_name},
		{"children", node_children}, {"parent", node_parent},
		{"tostring", node_tostring}, {NULL, NULL},
	};

	policy_class(state, DOC_CLASS, doc);
	policy_class(state, NODE_CLASS, node);
	luaL_getmetatable(state, DOC_CLASS);
	lua_pushcfunction(state, doc_gc);
	lua_setfield(state, -2, "__gc");
	lua_pushcfunction(state, doc_tostring);
	lua_setfield(state, -2, "__tostring");
	luaL_getmetatable(state, NODE_CLASS);
	lua_pushcfunction(state, node_tostring);
	lua_setfield(state, -2, "__tostring");
	lua_newtable(state);
	luaL_register(state, NULL, xml);
	lua_setglobal(state, "xml");
	lua_settop(state, 1);
}
