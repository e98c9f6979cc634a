"""The pages, as Streamlit shows them; a folder named pages beside the script would be run by Streamlit itself."""
